//! Derive macros of `spirula-wire`: `Denc` for structs whose encoding is their fields in order, and
//! `Message` for messages that are such a struct.
//!
//! Invariants: generated code only calls `Encode`/`Decode` of the field types, so it is as bounded
//! and panic-free as they are; field order in the source is the order on the wire.
//!
//! ```text
//! #[derive(Denc)]                                   fields in order
//! #[denc(version = 3, compat = 1)]                  inside a versioned envelope
//! #[denc(version = 3, compat = 1, oldest = 2)]      a sender older than 2 is refused
//! #[denc(since = 2)] field                          Default when the sender is older than 2
//!
//! #[derive(Message)]
//! #[message(ty = types::MON_GETMAP, version = 1, compat = 1)]   also `oldest`, `priority`
//! #[message(since = 2)] field                       as above, by the header's version
//! #[message(data)] / #[message(middle)] field       that segment whole (`Bytes`), not in front
//! #[message(rest)] field                            the unread end of front (`Bytes`), no length
//! ```
#![forbid(unsafe_code)]

use proc_macro::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Expr, Fields, Member, Type, parse_macro_input, spanned::Spanned};

#[proc_macro_derive(Denc, attributes(denc))]
pub fn derive_denc(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    denc(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    message(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Keys given on the struct itself.
#[derive(Default)]
struct StructArgs {
    ty: Option<Expr>,
    version: Option<Expr>,
    compat: Option<Expr>,
    oldest: Option<Expr>,
    priority: Option<Expr>,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Front,
    Data,
    Middle,
    Rest,
}

struct Field {
    member: Member,
    ty: Type,
    since: Option<Expr>,
    place: Place,
}

fn struct_args(input: &DeriveInput, attr_name: &str) -> syn::Result<StructArgs> {
    let mut args = StructArgs::default();
    for attr in input.attrs.iter().filter(|a| a.path().is_ident(attr_name)) {
        attr.parse_nested_meta(|meta| {
            let slot = match meta.path.get_ident().map(ToString::to_string).as_deref() {
                Some("ty") => &mut args.ty,
                Some("version") => &mut args.version,
                Some("compat") => &mut args.compat,
                Some("oldest") => &mut args.oldest,
                Some("priority") => &mut args.priority,
                _ => return Err(meta.error("unknown key")),
            };
            *slot = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(args)
}

fn fields_of(input: &DeriveInput, attr_name: &str) -> syn::Result<Vec<Field>> {
    let Data::Struct(data) = &input.data else {
        return Err(syn::Error::new(input.span(), "only structs have a field order"));
    };
    let fields = match &data.fields {
        Fields::Named(named) => named.named.iter().collect::<Vec<_>>(),
        Fields::Unnamed(unnamed) => unnamed.unnamed.iter().collect(),
        Fields::Unit => Vec::new(),
    };
    fields.into_iter().enumerate().map(|(i, f)| field_of(i, f, attr_name)).collect()
}

fn field_of(index: usize, field: &syn::Field, attr_name: &str) -> syn::Result<Field> {
    let mut since = None;
    let mut place = Place::Front;
    for attr in field.attrs.iter().filter(|a| a.path().is_ident(attr_name)) {
        attr.parse_nested_meta(|meta| {
            match meta.path.get_ident().map(ToString::to_string).as_deref() {
                Some("since") => since = Some(meta.value()?.parse()?),
                Some("data") => place = Place::Data,
                Some("middle") => place = Place::Middle,
                Some("rest") => place = Place::Rest,
                _ => return Err(meta.error("unknown key")),
            }
            Ok(())
        })?;
    }
    let member = field.ident.clone().map_or_else(|| Member::from(index), Member::from);
    Ok(Field { member, ty: field.ty.clone(), since, place })
}

fn denc(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let args = struct_args(input, "denc")?;
    let fields = fields_of(input, "denc")?;
    let (name, label) = (&input.ident, input.ident.to_string());
    let (impl_generics, ty_generics, bounds) = input.generics.split_for_impl();
    let puts = fields.iter().map(|f| {
        let (member, ty) = (&f.member, &f.ty);
        quote!(<#ty as ::spirula_wire::Encode>::encode(&self.#member, out, features);)
    });
    let puts = quote!(#(#puts)*);
    let gets = fields.iter().map(|f| {
        let (member, get) = (&f.member, front_get(f));
        quote!(#member: #get,)
    });
    let gets = quote!(#(#gets)*);

    let (encode, decode, min_size) = if let Some(version) = &args.version {
        let compat = args.compat.as_ref().unwrap_or(version);
        let check = oldest_check(&label, args.oldest.as_ref());
        (
            quote!(::spirula_wire::denc::encode_versioned(out, #version, #compat, |out| { #puts })),
            quote!(r.versioned(#label, #version, |version, r| {
                let _ = (&version, &r);
                #check
                Ok(Self { #gets })
            })),
            quote!(6),
        )
    } else {
        if let Some(bad) = fields.iter().find_map(|f| f.since.as_ref()) {
            return Err(syn::Error::new(bad.span(), "`since` needs `version` on the struct"));
        }
        let sizes = fields.iter().map(|f| &f.ty);
        (
            puts,
            quote!(Ok(Self { #gets })),
            quote!(0 #(+ <#sizes as ::spirula_wire::Decode>::MIN_SIZE)*),
        )
    };
    Ok(quote! {
        impl #impl_generics ::spirula_wire::Encode for #name #ty_generics #bounds {
            fn encode(&self, out: &mut Vec<u8>, features: ::spirula_wire::Features) {
                let _ = (&features, &out);
                #encode
            }
        }
        impl #impl_generics ::spirula_wire::Decode for #name #ty_generics #bounds {
            const MIN_SIZE: usize = #min_size;
            fn decode(
                r: &mut ::spirula_wire::Reader<'_>,
            ) -> Result<Self, ::spirula_wire::DecodeError> {
                let _ = &r;
                #decode
            }
        }
    })
}

fn message(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let args = struct_args(input, "message")?;
    let fields = fields_of(input, "message")?;
    let (name, label) = (&input.ident, input.ident.to_string());
    let (Some(ty), Some(version)) = (&args.ty, &args.version) else {
        return Err(syn::Error::new(input.span(), "a message needs `ty` and `version`"));
    };
    let compat = args.compat.as_ref().unwrap_or(version);
    let priority = args.priority.iter();
    let check = oldest_check(&label, args.oldest.as_ref());
    let puts =
        fields.iter().filter(|f| matches!(f.place, Place::Front | Place::Rest)).map(front_put);
    let middle = fields.iter().find(|f| f.place == Place::Middle).map(|f| &f.member).into_iter();
    let data = fields.iter().find(|f| f.place == Place::Data).map(|f| &f.member).into_iter();
    let gets = fields.iter().enumerate().map(|(i, f)| {
        let (var, member) = (format_ident!("field{i}"), &f.member);
        let get = match f.place {
            Place::Front => front_get(f),
            Place::Data => quote!(payload.data_bytes()),
            Place::Middle => quote!(payload.middle.clone()),
            Place::Rest => quote!(payload.front.slice(payload.front.len() - r.remaining()..)),
        };
        (quote!(let #var = #get;), quote!(#member: #var,))
    });
    let (lets, inits): (Vec<_>, Vec<_>) = gets.unzip();
    Ok(quote! {
        impl ::spirula_wire::Message for #name {
            const TYPE: u16 = #ty;
            const VERSION: u16 = #version;
            const COMPAT_VERSION: u16 = #compat;
            #(const PRIORITY: u16 = #priority;)*

            fn encode_payload(
                &self,
                features: ::spirula_wire::Features,
            ) -> ::spirula_wire::Payload {
                let _ = features;
                #[allow(unused_mut)]
                let mut out = Vec::new();
                #(#puts)*
                #[allow(unused_mut)]
                let mut payload = ::spirula_wire::Payload {
                    front: out.into(),
                    ..Default::default()
                };
                #(payload.middle = self.#middle.clone();)*
                #(payload.data.extend(Some(self.#data.clone()).filter(|d| !d.is_empty()));)*
                payload
            }

            fn decode_payload(
                header: &::spirula_wire::Header,
                payload: &::spirula_wire::Payload,
            ) -> Result<Self, ::spirula_wire::DecodeError> {
                ::spirula_wire::message::check_compat::<Self>(#label, header)?;
                let version = header.version;
                #[allow(unused_mut)]
                let mut reader = ::spirula_wire::Reader::new(&payload.front);
                let r = &mut reader;
                let _ = (&version, &r);
                #check
                #(#lets)*
                Ok(Self { #(#inits)* })
            }
        }
    })
}

fn front_put(field: &Field) -> proc_macro2::TokenStream {
    let (member, ty) = (&field.member, &field.ty);
    match field.place {
        Place::Rest => quote!(out.extend_from_slice(&self.#member);),
        _ => quote! {
            <#ty as ::spirula_wire::Encode>::encode(&self.#member, &mut out, features);
        },
    }
}

fn front_get(field: &Field) -> proc_macro2::TokenStream {
    let ty = &field.ty;
    let get = quote!(<#ty as ::spirula_wire::Decode>::decode(r)?);
    match &field.since {
        Some(since) => quote!(if version >= #since { #get } else { Default::default() }),
        None => get,
    }
}

fn oldest_check(label: &str, oldest: Option<&Expr>) -> Option<proc_macro2::TokenStream> {
    oldest.map(|oldest| {
        quote! {
            if version < #oldest {
                return Err(::spirula_wire::DecodeError::TooOld {
                    what: #label,
                    version: version as _,
                    oldest: #oldest,
                });
            }
        }
    })
}
