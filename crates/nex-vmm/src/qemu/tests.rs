//! The golden command lines.

use super::argv::{LaunchParams, argv, file_node, raw_node};
use super::*;
use crate::golden::{check as golden, full_spec, minimal_spec};

fn text(spec: &MachineSpec, params: LaunchParams) -> String {
    argv(spec, params).iter().map(|word| format!("{word}\n")).collect()
}

#[test]
fn the_command_lines_are_those_of_the_golden_files() {
    let params =
        LaunchParams { accel: Accel::Tcg, tsc_khz: Some(2_596_108), qmp: 10, channel: 11, memory: 12, tap: None, restore: false };
    golden("qemu-boot-bare.txt", &text(&minimal_spec(), params));
    let kvm = LaunchParams { accel: Accel::Kvm, tap: Some(13), ..params };
    golden("qemu-boot-whole-kvm.txt", &text(&full_spec(), kvm));
    let restore = LaunchParams { restore: true, ..params };
    golden("qemu-restore-bare.txt", &text(&minimal_spec(), restore));
}

#[test]
fn a_replaced_drive_has_the_nodes_of_the_golden_file() {
    let nodes = [file_node("drive0-1", "drive0.img", false), file_node("drive0-1", "drive0.img", true), raw_node("drive0", 1)];
    golden("qemu-swap.txt", &nodes.map(|node| format!("{node}\n")).concat());
}

#[test]
fn every_device_has_a_slot() {
    let params =
        LaunchParams { accel: Accel::Tcg, tsc_khz: None, qmp: 10, channel: 11, memory: 12, tap: Some(13), restore: false };
    let args = argv(&full_spec(), params);
    let mut slots: Vec<_> = args.iter().filter_map(|word| Some(word.split_once("bus=virtio-mmio-bus.")?.1)).collect();
    assert_eq!(slots.len(), 8);
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), 8, "no two devices in one slot");
}

#[tokio::test]
async fn a_tap_that_is_busy_for_a_moment_is_waited_for_and_no_other_failure_is() {
    let by = Deadline::after(Duration::from_secs(10));
    let mut answers = vec![Ok("tap"), Err(io::ErrorKind::ResourceBusy.into()), Err(io::ErrorKind::ResourceBusy.into())];
    assert_eq!(once_free(|| answers.pop().unwrap(), by).await.unwrap(), "tap");
    let mut answers = vec![Ok("tap"), Err(io::ErrorKind::PermissionDenied.into())];
    assert_eq!(once_free(|| answers.pop().unwrap(), by).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    let never: io::Result<&str> = once_free(|| Err(io::ErrorKind::ResourceBusy.into()), Deadline::after(Duration::ZERO)).await;
    assert_eq!(never.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
}
