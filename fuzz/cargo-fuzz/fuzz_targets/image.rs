#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nex_fuzz::image_of_a_workload(bytes));
