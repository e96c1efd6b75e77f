//! The golden command lines.

use super::argv::{Given, argv, file_node, raw_node};
use super::*;
use crate::golden::{bare, check as golden, whole};

fn text(spec: &MachineSpec, given: Given) -> String {
    argv(spec, given).iter().map(|word| format!("{word}\n")).collect()
}

#[test]
fn the_command_lines_are_those_of_the_golden_files() {
    let given =
        Given { accel: Accel::Tcg, tsc_khz: Some(2_596_108), qmp: 10, channel: 11, memory: 12, tap: None, restore: false };
    golden("qemu-boot-bare.txt", &text(&bare(), given));
    let kvm = Given { accel: Accel::Kvm, tap: Some(13), ..given };
    golden("qemu-boot-whole-kvm.txt", &text(&whole(), kvm));
    let restore = Given { restore: true, ..given };
    golden("qemu-restore-bare.txt", &text(&bare(), restore));
}

#[test]
fn a_replaced_drive_has_the_nodes_of_the_golden_file() {
    let nodes = [file_node("drive0-1", "drive0.img", false), file_node("drive0-1", "drive0.img", true), raw_node("drive0", 1)];
    golden("qemu-swap.txt", &nodes.map(|node| format!("{node}\n")).concat());
}

#[test]
fn everything_has_a_place() {
    let given = Given { accel: Accel::Tcg, tsc_khz: None, qmp: 10, channel: 11, memory: 12, tap: Some(13), restore: false };
    let words = argv(&whole(), given);
    let mut places: Vec<_> = words.iter().filter_map(|word| Some(word.split_once("bus=virtio-mmio-bus.")?.1)).collect();
    assert_eq!(places.len(), 8);
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 8, "no two devices in one place");
}
