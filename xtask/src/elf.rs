//! Checks that a binary is static: it must run in an empty root, without a dynamic loader.

use anyhow::{Context as _, Result, bail};
use std::path::Path;

const PT_INTERP: u32 = 3;

/// Refuses an ELF file that needs a dynamic loader, and any file that is not a 64-bit little-endian ELF file.
pub(crate) fn check_static(file: &Path) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if asks_for_loader(&bytes).with_context(|| format!("{} is not a 64-bit ELF file", file.display()))? {
        bail!("{} is dynamically linked: build it in this workspace, whose .cargo/config.toml makes it static", file.display());
    }
    Ok(())
}

fn asks_for_loader(elf: &[u8]) -> Option<bool> {
    // Little-endian (byte 5) and 64 bits (byte 4), then: e_phoff at 32, e_phentsize at 54, e_phnum at 56.
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let start = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let size = usize::from(u16::from_le_bytes(elf.get(54..56)?.try_into().ok()?));
    let count = usize::from(u16::from_le_bytes(elf.get(56..58)?.try_into().ok()?));
    for index in 0..count {
        let header = elf.get(start.checked_add(index.checked_mul(size)?)?..)?;
        if u32::from_le_bytes(header.get(..4)?.try_into().ok()?) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::asks_for_loader;

    #[test]
    fn this_workspace_builds_static_programs() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(asks_for_loader(&this), Some(false));
    }

    #[test]
    fn a_program_of_the_system_asks_for_the_loader_and_a_text_is_no_program() {
        let mut elf = vec![0_u8; 128];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56], elf[64]) = (64, 56, 1, 3);
        assert_eq!(asks_for_loader(&elf), Some(true));
        assert_eq!(asks_for_loader(&elf[..60]), None);
        assert_eq!(asks_for_loader(b"#!/bin/sh"), None);
    }
}
