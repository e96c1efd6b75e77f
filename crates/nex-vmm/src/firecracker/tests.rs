//! The golden sequences, and the command lines.

use serde_json::json;

use super::*;
use crate::golden::{check as golden, full_spec, minimal_spec};

fn text(requests: &[Request]) -> String {
    requests.iter().map(|request| format!("{} {} {}\n", request.method, request.path, request.body)).collect()
}

#[test]
fn the_requests_of_a_machine_s_life_are_those_of_the_golden_files() {
    golden("firecracker-boot-bare.txt", &text(&requests::boot(&minimal_spec())));
    golden("firecracker-boot-whole.txt", &text(&requests::boot(&MachineSpec { metadata: true, ..full_spec() })));
    golden("firecracker-restore-bare.txt", &text(&requests::restore(&minimal_spec())));
    golden("firecracker-restore-whole.txt", &text(&requests::restore(&full_spec())));
    golden("firecracker-snapshot.txt", &text(&requests::snapshot()));
    let nic = full_spec().nic.unwrap();
    let later = [
        requests::swap_drive(2),
        requests::set_metadata(&json!({"nex": {"id": "one"}})),
        requests::set_balloon(64),
        requests::limit_network(&nic.rx.unwrap(), &nic.tx.unwrap()),
        requests::press_power(),
    ];
    golden("firecracker-later.txt", &text(&later));
}

#[test]
fn a_jailed_machine_has_a_user_and_the_jailer_s_arguments() {
    let args = jailer_args(&full_spec(), 1234, Path::new("/usr/bin/firecracker"));
    let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    golden("firecracker-jailer.txt", &(args.join("\n") + "\n"));
    let jailed = Firecracker::new("/usr/bin/firecracker".into(), Some(Jailer { binary: "/usr/bin/jailer".into() }));
    assert!(matches!(jailed.command(&minimal_spec()), Err(VmmError::Invalid(_))));
    assert!(jailed.command(&full_spec()).is_ok());
}

#[test]
fn metadata_needs_a_network_interface() {
    assert!(check(&MachineSpec { metadata: true, ..full_spec() }).is_ok());
    assert!(check(&MachineSpec { metadata: true, ..minimal_spec() }).is_err());
    for bad in ["", "a/b", "..", "ü"] {
        assert!(check(&MachineSpec { id: bad.to_owned(), ..minimal_spec() }).is_err(), "{bad}");
    }
    assert!(check(&MachineSpec { boot_args: "a\nb".to_owned(), ..minimal_spec() }).is_err());
    assert!(check(&MachineSpec { drives: vec!["x".into(); 4], ..minimal_spec() }).is_err());
}
