//! Reads the golden values that lie beside the reference volumes. The tests of the whole program include this file
//! by its path: it stands alone.

use std::path::Path;

use serde_json::Value;

/// `reference.json` in the folder of reference volumes.
pub(crate) fn read(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("reference/reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The numbers of a JSON array, however deep.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

/// The float32 values of a version 1 `.npy` file in C order, with its shape.
pub(crate) fn npy(path: &Path) -> (Vec<f32>, Vec<usize>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\0");
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..header_end]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape = shape.split(',').filter_map(|length| length.trim().parse().ok()).collect();
    let (values, _) = bytes[header_end..].as_chunks::<4>();
    (values.iter().map(|&value| f32::from_le_bytes(value)).collect(), shape)
}
