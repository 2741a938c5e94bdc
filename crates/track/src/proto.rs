//! Just enough of Protocol Buffers' wire format: a writer of messages, and an iterator over the fields of one.

/// A message in the making.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Without fields.
    pub fn new() -> Self {
        Self::default()
    }
    /// Its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
    /// Its bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    fn raw(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }
    fn tag(&mut self, field: u32, wire: u64) {
        self.raw(u64::from(field) << 3 | wire);
    }
    /// An integer, enumeration or boolean; negative ones in ten bytes, as `int32` and `int64` are written.
    pub fn int(mut self, field: u32, v: i64) -> Self {
        self.tag(field, 0);
        self.raw(v as u64);
        self
    }
    /// A `double`.
    pub fn double(mut self, field: u32, v: f64) -> Self {
        self.tag(field, 1);
        self.0.extend(v.to_le_bytes());
        self
    }
    /// A `float`.
    pub fn float(mut self, field: u32, v: f32) -> Self {
        self.tag(field, 5);
        self.0.extend(v.to_le_bytes());
        self
    }
    /// Bytes.
    pub fn bytes(mut self, field: u32, v: &[u8]) -> Self {
        self.tag(field, 2);
        self.raw(v.len() as u64);
        self.0.extend(v);
        self
    }
    /// A string.
    pub fn text(self, field: u32, v: &str) -> Self {
        self.bytes(field, v.as_bytes())
    }
    /// A message within.
    pub fn message(self, field: u32, v: &Message) -> Self {
        self.bytes(field, &v.0)
    }
    /// Packed `double`s.
    pub fn doubles(self, field: u32, v: &[f64]) -> Self {
        let packed: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.bytes(field, &packed)
    }
}

/// A field as it lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// Integers, enumerations, booleans.
    Int(i64),
    /// `double`.
    Double(f64),
    /// `float`.
    Float(f32),
    /// Strings, bytes, messages, packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// The text of a string field; empty for anything else.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.inner()).into_owned()
    }
    /// The bytes of a message field; none for anything else.
    pub fn inner(self) -> &'a [u8] {
        if let Field::Bytes(b) = self { b } else { &[] }
    }
    /// The number of a numeric field; 0 for anything else.
    pub fn number(self) -> f64 {
        match self {
            Field::Int(v) => v as f64,
            Field::Double(v) => v,
            Field::Float(v) => f64::from(v),
            Field::Bytes(_) => 0.0,
        }
    }
    /// Packed doubles.
    pub fn doubles(self) -> Vec<f64> {
        self.inner().as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c)).collect()
    }
}

/// The fields of a message with their numbers, in order; `None` if the bytes are no message.
pub fn fields(mut b: &[u8]) -> Option<Vec<(u32, Field<'_>)>> {
    let mut out = Vec::new();
    while !b.is_empty() {
        let tag = varint(&mut b)?;
        let field = match tag & 7 {
            0 => Field::Int(varint(&mut b)? as i64),
            1 => Field::Double(f64::from_le_bytes(take(&mut b, 8)?.try_into().ok()?)),
            5 => Field::Float(f32::from_le_bytes(take(&mut b, 4)?.try_into().ok()?)),
            2 => {
                let n = usize::try_from(varint(&mut b)?).ok()?;
                Field::Bytes(take(&mut b, n)?)
            }
            _ => return None,
        };
        out.push((u32::try_from(tag >> 3).ok()?, field));
    }
    Some(out)
}

fn take<'a>(b: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = b.split_at_checked(n)?;
    *b = tail;
    Some(head)
}

fn varint(b: &mut &[u8]) -> Option<u64> {
    let mut v = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(b, 1)?[0];
        v |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(v);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_encoding_guide_and_back() {
        // protobuf.dev/programming-guides/encoding: field 1 = 150, field 2 = "testing", field 3 = {1: 150}.
        let inner = Message::new().int(1, 150);
        assert_eq!(inner.as_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(
            Message::new().text(2, "testing").into_bytes(),
            [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]
        );
        assert_eq!(Message::new().message(3, &inner).into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let all = Message::new()
            .int(200, -1)
            .double(1, 0.1)
            .float(2, 0.5)
            .text(3, "é")
            .doubles(6, &[1.0, -2.5])
            .into_bytes();
        let got = fields(&all).unwrap();
        assert_eq!(got[0], (200, Field::Int(-1)));
        assert_eq!((got[1].1.number(), got[2].1.number()), (0.1, 0.5));
        assert_eq!((got[3].1.text(), got[4].1.doubles()), ("é".into(), vec![1.0, -2.5]));
        for cut in 1..all.len() {
            // No cut is read past its end.
            let _ = fields(&all[..cut]);
        }
        assert_eq!(fields(&all[..all.len() - 1]), None);
        assert_eq!(fields(&[0xff; 12]), None);
    }
}
