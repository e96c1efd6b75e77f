#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nex_fuzz::oci_document(bytes));
