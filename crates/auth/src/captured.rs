//! A session of a real Ceph 16.2.15 (monitor, manager in secure mode, OSD in crc mode), captured
//! with the entity's key and the session keys that the client logged.
#![cfg(test)]

use std::time::Duration;

use spirula_wire::types::EntityType;
use spirula_wire::{Decode, Encode, Features, Reader};

use crate::protocol::{Authenticate, Authorize, AuthorizeReply, ServerChallenge, challenge_proof};
use crate::*;

const KEY: &str = "AQDAaAJrOhw2IBAAejjImqctIRb/YEem9jxvpQ==";
const SESSION_KEYS: [(u32, &str); 4] = [
    (32, "AQDTagJrE8LXGBAA4cEfbTJF8nGuSKbEgsbq6Q=="),
    (1, "AQDTagJreBHYGBAA82YmGRHzpc7YC5jpWK9ygw=="),
    (4, "AQDTagJrRR/YGBAAk2qPgCVEV3XGfdnzew1EVg=="),
    (16, "AQDTagJrdC3YGBAA4wY4iNlO/JnR2PDKUzx0jw=="),
];
const GLOBAL_ID: u64 = 0x165f;
const NOW: WallTime = Duration::from_secs(1_795_000_000);

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|d| std::str::from_utf8(d).unwrap());
    digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect()
}

fn connector() -> MonConnector {
    let config = MonConnectConfig {
        principal: Principal {
            name: "client.auth-kat".parse().unwrap(),
            key: CryptoKey::from_base64(KEY).unwrap(),
        },
        methods: vec![METHOD_CEPHX],
        modes: vec![ConMode::Secure, ConMode::Crc],
        want: 53,
    };
    MonConnector::new(config, &MonGrant::default(), NOW, [0; 32])
}

fn grant() -> MonGrant {
    let mut c = connector();
    c.request();
    c.more(&hex(MON_CHALLENGE)).unwrap();
    let done = c.done(NOW, GLOBAL_ID, ConMode::Secure, &hex(MON_DONE)).unwrap();
    assert_eq!(done.connection_secret.len(), 64);
    assert_eq!(done.session_key.to_base64(), SESSION_KEYS[0].1);
    *done.grant.unwrap()
}

#[test]
fn the_request_and_the_proof_are_the_captured_ones() {
    assert_eq!(connector().request().payload, hex(MON_REQUEST));
    let captured = hex(MON_PROOF);
    let mut r = Reader::new(&captured);
    assert_eq!(r.u16(), Ok(protocol::GET_AUTH_SESSION_KEY));
    let sent = Authenticate::decode(&mut r).unwrap();
    let ServerChallenge(challenge) = Decode::from_bytes(&hex(MON_CHALLENGE)).unwrap();
    let key = CryptoKey::from_base64(KEY).unwrap();
    assert_eq!(challenge_proof(&key, challenge, sent.client_challenge), Ok(sent.proof));
    assert_eq!((sent.services, sent.may_omit_old_ticket), (53, false));
    let mut again = protocol::GET_AUTH_SESSION_KEY.to_bytes(Features::PACIFIC);
    sent.encode(&mut again, Features::PACIFIC);
    assert_eq!(again, captured);
}

#[test]
fn the_grant_opens_to_the_logged_keys() {
    let grant = grant();
    assert_eq!(grant.tickets.len(), 4);
    for (service, key) in SESSION_KEYS {
        assert_eq!(grant.tickets[&service].session_key.to_base64(), key);
        assert_eq!(grant.tickets[&service].blob.secret_id, 2);
    }
    assert_eq!(grant.tickets[&32].expires, NOW + Duration::from_secs(72 * 3600));
    assert_eq!(grant.tickets[&4].expires, NOW + Duration::from_secs(3600));
}

#[test]
fn the_authorizers_are_the_captured_ones() {
    for (service, request, challenge, proof, done, secret_len) in [
        (EntityType::MGR, MGR_REQUEST, MGR_CHALLENGE, MGR_PROOF, MGR_DONE, 64),
        (EntityType::OSD, OSD_REQUEST, OSD_CHALLENGE, OSD_PROOF, OSD_DONE, 0),
    ] {
        let grant = grant();
        let bit = u32::from(service.0);
        let ticket = &grant.tickets[&bit];
        let key = &ticket.session_key;
        let sealed_part = |payload: &[u8]| {
            let head = ticket.authorizer(GLOBAL_ID, bit, &Authorize::default()).unwrap();
            let at = head.len() - 36;
            assert_eq!(payload[..at], head[..at]);
            key.open_from::<Authorize>(&mut Reader::new(&payload[at..])).unwrap()
        };
        let first = sealed_part(&hex(request));
        let ServerChallenge(challenge) = key.open(&hex(challenge)).unwrap();
        let second = sealed_part(&hex(proof));
        assert_eq!(first, Authorize { nonce: first.nonce, challenge_plus_one: None });
        let answer = Authorize { challenge_plus_one: Some(challenge + 1), ..first };
        assert_eq!(second, answer);
        assert_eq!(ticket.authorizer(GLOBAL_ID, bit, &answer).unwrap(), hex(proof));
        let reply: AuthorizeReply = key.open_from(&mut Reader::new(&hex(done))).unwrap();
        assert_eq!(reply.nonce_plus_one, answer.nonce + 1);
        assert_eq!(reply.connection_secret.len(), secret_len);
    }
}

const MON_REQUEST: &str = "\
    0a0800000008000000617574682d6b61740000000000000000";
const MON_CHALLENGE: &str = "\
    01320a68f4592a1ee6";
const MON_PROOF: &str = "\
    00010395862b70678e50d02d99bbe77c89caff0100000000000000000000000035000000";
const MON_DONE: &str = "\
    00010000000001010000002000000001300000007d7d59cfc1e2cf92ee01231bc0695375b131633d68c15fef0e32\
    a8228757f621e5d33ae1c2c2c9cf0885ae94bb93feb0007d00000001020000000000000070000000196c559b0831\
    f494f278a61bbf4528acd8050609bb2484154e7c87e00fce15c5596c391caad3e2bef91531cfdb9fb4d1e6079a43\
    8089943be22d9caa2b096b6a53b02dbfb5b7d6fb2c51624bc42f81533154459e0451a45d851f8a5621ca117342fb\
    59dd7fcf5e43959c8532852cd83554000000500000002388c49c55dfdd33b44a63b7057c5bb06d4a4cbdc2d9fd6a\
    00cb02accb47bf073ca870115e005ec397ad3eba2441e6350a9da8d2536739e5a7e7b5a85c7f64edb6a45fdbbd9b\
    ed3b3baf6285e3e520aa3602000001030000000100000001300000009efade417d055068eb794d689ac952d78d31\
    9a773cb17ca8b1c7cd449ce3df6117fff036e5f972bc603270d56f1ebfd2007d0000000102000000000000007000\
    0000f4d51e412563363d48f08c05be1ef7fcf28da6f6f9eed239ffd0f9d7032a389ac4d5aa0d5750b1b506b39454\
    801029859226152ae74fc7b8e9545d722c05f5dc663f2cff65bc008d0e46773173b1c2307c0347cbce36919ed769\
    44ef923259811ea02541b45e4fd2b8a2d612c7feb3d80400000001300000009efade417d055068eb794d689ac952\
    d7aa80704a1b2b9d0ebfce438b98bb0852089cfc5b6486b8c81481787c8784a680007d0000000102000000000000\
    0070000000c8323c038d4235cd0876dd12f5cb8602cd0372a723fa025ff10280ef986c32bbcc5b8af860fdd66c57\
    eebb8e3c7debc7dd2d886eec3a4ccd4e7a73e1a6e7031b51bdc685354df47996aaa357299c5f48aba63a41ed8140\
    cf9227cf472a4623086a3b719efc30d53baba7f49c4fdf8f1a1000000001300000009efade417d055068eb794d68\
    9ac952d7b18b8ab8eee1060d0cf0653d4f48561dd7ce1024770cf254777a0081c3e3c8db007d0000000102000000\
    000000007000000099d0b92d123c750e68a6229e40e7c623ae8d7625c74febc175b44b01c28c8f99ec38729d5151\
    0412819b1236dd115544a2e1de94f63585a53d18835363488c2900a8bd74104941e2b4d62768dd9194376cdfd2b7\
    e5b3c23678719b0b5d98fcd88aca1b665899478ff52702ffdb1086b8";
const MGR_REQUEST: &str = "\
    015f16000000000000100000000102000000000000007000000099d0b92d123c750e68a6229e40e7c623ae8d7625\
    c74febc175b44b01c28c8f99ec38729d51510412819b1236dd115544a2e1de94f63585a53d18835363488c2900a8\
    bd74104941e2b4d62768dd9194376cdfd2b7e5b3c23678719b0b5d98fcd88aca1b665899478ff52702ffdb1086b8\
    200000009a8f6e11ee4c4dedea88f011e3d294f9a9e59360cbf846db35fd66f7d01a7bfd";
const MGR_CHALLENGE: &str = "\
    95deabe07e98b34ee9e2d9b0bbde7a24c3eafcd8983c7f09e4b9daf1aa01f0c2";
const MGR_PROOF: &str = "\
    015f16000000000000100000000102000000000000007000000099d0b92d123c750e68a6229e40e7c623ae8d7625\
    c74febc175b44b01c28c8f99ec38729d51510412819b1236dd115544a2e1de94f63585a53d18835363488c2900a8\
    bd74104941e2b4d62768dd9194376cdfd2b7e5b3c23678719b0b5d98fcd88aca1b665899478ff52702ffdb1086b8\
    200000009a8f6e11ee4c4dedea88f011e3d294f9cf3ab39845f4aeb61c5213c2ebb9ba3e";
const MGR_DONE: &str = "\
    600000006a0b5ae0acdd6e44f544938c77172c16b03b529723d1f322015d3c0af96a19fb4918451f0ae7ae0fd41a\
    551f17865369307ba27bb28077a31fc0ce430a43f0a7c44f2ddd73a2a478f622b833c97e8bea13138c9b3dc7c1fc\
    b3ef355e927b4e96";
const OSD_REQUEST: &str = "\
    015f160000000000000400000001020000000000000070000000c8323c038d4235cd0876dd12f5cb8602cd0372a7\
    23fa025ff10280ef986c32bbcc5b8af860fdd66c57eebb8e3c7debc7dd2d886eec3a4ccd4e7a73e1a6e7031b51bd\
    c685354df47996aaa357299c5f48aba63a41ed8140cf9227cf472a4623086a3b719efc30d53baba7f49c4fdf8f1a\
    20000000ad06a69cd4468eed1cc021d4d90bd10630a7cde65cd4da7743c2d53592caa1d8";
const OSD_CHALLENGE: &str = "\
    8a93981c4663e0bbc20b1aec03ade5c09cf7bfbcf425bc61e1ba1268a5e04167";
const OSD_PROOF: &str = "\
    015f160000000000000400000001020000000000000070000000c8323c038d4235cd0876dd12f5cb8602cd0372a7\
    23fa025ff10280ef986c32bbcc5b8af860fdd66c57eebb8e3c7debc7dd2d886eec3a4ccd4e7a73e1a6e7031b51bd\
    c685354df47996aaa357299c5f48aba63a41ed8140cf9227cf472a4623086a3b719efc30d53baba7f49c4fdf8f1a\
    20000000ad06a69cd4468eed1cc021d4d90bd1062071d88ecd686d55359e23c3a5f33d9e";
const OSD_DONE: &str = "\
    200000002a2649c65ca5b069aff9108053a3b4e6ce2e495c51aebcb57a80d13e5f5bd8e1";
