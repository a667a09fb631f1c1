//! The body of an UPDATE: routes that can be read can be written, and then are the same.
#![no_main]

use isthmus_bgp::{
    Asn, Family, FamilySet,
    wire::{
        Announcer, EXTENDED_MESSAGE_BYTES_MAX, EncodeContext, UpdateContext, decode_update, frame,
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&flags, body)) = data.split_first() else { return };
    let all: FamilySet = Family::ALL.into_iter().collect();
    let context = UpdateContext {
        external: flags & 1 != 0,
        as4: flags & 2 != 0,
        families: if flags & 4 != 0 { all } else { [Family::Ipv4Unicast].into_iter().collect() },
        add_path: if flags & 8 != 0 { all } else { FamilySet::NONE },
        first_as: (flags & 16 != 0).then_some(Asn(1)),
        refuse_as_sets: flags & 32 != 0,
        extended_next_hop: true,
        local_address: None,
    };
    let Ok(update) = decode_update(body, &context) else { return };
    assert!(update.announced.is_empty() || !update.is_treated_as_withdraw());
    let encode = EncodeContext {
        as4: true,
        add_path: context.add_path,
        message_bytes_max: EXTENDED_MESSAGE_BYTES_MAX,
    };
    let context = UpdateContext { external: false, as4: true, families: all, first_as: None, ..context };
    for announced in &update.announced {
        let family = announced.nlri[0].prefix.family();
        let Ok(announcer) = Announcer::new(&announced.attributes, family, encode) else { continue };
        let mut out = Vec::new();
        announcer.announce(announced.nlri.iter().copied(), &mut out);
        let frame = frame(&out, EXTENDED_MESSAGE_BYTES_MAX).expect("ours").expect("whole");
        let again = decode_update(frame.body, &context).expect("what was written can be read");
        assert_eq!(again.announced[0].attributes, announced.attributes, "{:?}", again.faults);
    }
});
