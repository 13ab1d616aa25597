//! Generates requests from bytes. The same bytes give the same request and fewer bytes a simpler one, so that failing cases
//! shrink.

use bytes::{BufMut as _, Bytes, BytesMut};
use modal_proto::prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, MethodDescriptor, Value};

/// Deepest nesting of a generated message, which is deeper than in any message of a client.
const DEPTH: usize = 5;

/// Bytes from which choices are made. When they are used up, every choice is the first option.
#[derive(Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Makes choices from these bytes.
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Returns a number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// Returns true in `n` of 256 cases.
    fn in_256(&mut self, n: u8) -> bool {
        n > 0 && self.byte() >= u8::MAX - (n - 1)
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.below(64);
        (0..len).map(|_| self.byte()).collect()
    }

    fn one<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.below(of.len())]
    }
}

/// Valid values of the emulator under test, by field name.
pub type Known = Vec<(&'static str, String)>;

/// Texts that often cause errors in programs.
const ODD: &[&str] = &[
    "",
    "x",
    "main",
    "/",
    "/tmp",
    "tmp/x",
    "../../etc/passwd",
    "/proc/self/root",
    "\0",
    "a\nb",
    "é🙂",
    "-1",
    "[*a*a*a*a*a*a*a*a*a*a*a*a",
    "FROM debian",
    "RUN <<E",
    "COPY [",
    "${",
    "$A:-${B:+x",
    "10.0.0.0/8",
    "*.example.com",
];

/// Commands that do little harm even without isolation.
const COMMANDS: &[&[&str]] =
    &[&["true"], &["cat"], &["sleep", "100"], &["sh", "-c", "yes"], &["no-such-program"], &[""]];

/// Generates an encoded message of this type.
pub fn message(of: &MessageDescriptor, known: &Known, choices: &mut Choices<'_>) -> Bytes {
    // Few odd fields let requests pass many checks; many odd fields test the first checks.
    let odd = *choices.one(&[2, 2, 2, 10, 10, 60, 200]);
    let mut maker = Maker { known, choices, odd };
    Bytes::from(maker.message(of, 0).encode_to_vec())
}

struct Maker<'a, 'b> {
    known: &'a Known,
    choices: &'a mut Choices<'b>,
    /// In how many of 256 cases a field without a known value is set.
    odd: u8,
}

impl Maker<'_, '_> {
    fn message(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        for field in of.fields().filter(|field| field.containing_oneof().is_none_or(|group| group.is_synthetic())) {
            let known = self.known.iter().any(|(name, _)| *name == field.name());
            let known = known || ["definition", "image", "command_args", "container_name"].contains(&field.name());
            if depth < DEPTH && self.choices.in_256(if known { 245 } else { self.odd }) {
                let value = self.any_value(&field, depth);
                message.set_field(&field, value);
            }
        }
        for group in of.oneofs().filter(|group| !group.is_synthetic()) {
            let fields: Vec<_> = group.fields().collect();
            if depth < DEPTH && self.choices.in_256(240) {
                let field = self.choices.one(&fields).clone();
                let value = self.any_value(&field, depth);
                message.set_field(&field, value);
            }
        }
        message
    }
    fn any_value(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        if field.is_map() {
            let len = self.choices.below(3);
            let entry = |choices: &mut Choices<'_>| {
                (MapKey::String((*choices.one(ODD)).to_owned()), Value::String((*choices.one(ODD)).to_owned()))
            };
            // The protocol's maps are from text to text; other maps stay empty.
            let texts =
                matches!(field.kind(), Kind::Message(entry) if entry.fields().all(|f| f.kind() == Kind::String));
            return Value::Map((0..if texts { len } else { 0 }).map(|_| entry(self.choices)).collect());
        }
        if field.name() == "command_args" || field.name() == "entrypoint_args" {
            let command = self.choices.one(COMMANDS);
            return Value::List(command.iter().map(|word| Value::String((*word).to_owned())).collect());
        }
        if field.is_list() {
            let len = self.choices.below(4);
            return Value::List((0..len).map(|_| self.one_value(field, depth)).collect());
        }
        self.one_value(field, depth)
    }

    fn one_value(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        let number = |choices: &mut Choices<'_>| match choices.below(8) {
            0 => 1,
            1 => 0,
            2 => u64::MAX,
            3 => 1 << 31,
            4 => i64::MAX as u64,
            5 => 100,
            _ => choices.number(),
        };
        match field.kind() {
            Kind::Bool => Value::Bool(self.choices.in_256(128)),
            Kind::Float => Value::F32(*self.choices.one(&[0.0, 0.01, -1.0, 1e30, f32::NAN, f32::INFINITY])),
            Kind::Double => Value::F64(*self.choices.one(&[0.0, 0.01, -1.0, 1e300, f64::NAN, f64::INFINITY])),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(self.choices) as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(self.choices) as i64),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(number(self.choices) as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(number(self.choices)),
            Kind::String => Value::String(self.text(field.name())),
            Kind::Bytes if field.name() == "path" => Value::Bytes(self.text("path").into_bytes().into()),
            Kind::Bytes => Value::Bytes(self.choices.bytes().into()),
            Kind::Message(of) => Value::Message(self.message(&of, depth + 1)),
            Kind::Enum(of) => match self.choices.below(of.values().len() + 1) {
                at if at < of.values().len() => {
                    Value::EnumNumber(of.values().nth(at).map_or(0, |value| value.number()))
                }
                _ => Value::EnumNumber(number(self.choices) as i32),
            },
        }
    }

    fn text(&mut self, field: &str) -> String {
        let fitting: Vec<_> = self.known.iter().filter(|(name, _)| *name == field).collect();
        match self.choices.below(16) {
            0..=11 if !fitting.is_empty() => self.choices.one(&fitting).1.clone(),
            12 => "x".repeat(70_000),
            13 => String::from_utf8_lossy(&self.choices.bytes()).into_owned(),
            _ => (*self.choices.one(ODD)).to_owned(),
        }
    }
}

/// Generates the body of a call: usually one message, or several for a stream.
pub fn body(method: &MethodDescriptor, known: &Known, choices: &mut Choices<'_>) -> Bytes {
    let count = if method.is_client_streaming() { choices.below(5) } else { 1 };
    let mut body = BytesMut::new();
    for _ in 0..count {
        let mut message = message(&method.input(), known, choices).to_vec();
        match choices.below(8) {
            0..=4 => {}
            5 => message = choices.bytes(),
            _ => mutate(&mut message, choices),
        }
        frame(&mut body, &message, choices);
    }
    if choices.in_256(20) {
        body.truncate(body.len() * choices.below(100) / 100);
    }
    body.freeze()
}

/// Changes, removes or inserts a few bytes.
fn mutate(message: &mut Vec<u8>, choices: &mut Choices<'_>) {
    for _ in 0..=choices.below(4) {
        let at = usize::try_from(choices.number()).unwrap_or(0) % (message.len() + 1);
        match choices.below(3) {
            0 if at < message.len() => message[at] = choices.byte(),
            1 if at < message.len() => drop(message.remove(at)),
            _ => message.insert(at, choices.byte()),
        }
    }
}

/// Appends a frame header and the message to a body. Sometimes the header is wrong.
fn frame(body: &mut BytesMut, message: &[u8], choices: &mut Choices<'_>) {
    let honest = message.len() as u32;
    let (compressed, length) = match choices.below(24) {
        20 => (1, honest),
        21 => (0, u32::MAX),
        22 => (0, honest.wrapping_add(u32::from(choices.byte()))),
        23 => (choices.byte(), honest.saturating_sub(1)),
        _ => (0, honest),
    };
    body.put_u8(compressed);
    body.put_u32(length);
    body.put_slice(message);
}

/// Generates wrong headers: names and values that replace or extend the usual ones.
pub fn headers(choices: &mut Choices<'_>) -> Vec<(&'static str, Vec<u8>)> {
    match choices.below(24) {
        12 => vec![("content-type", b"text/html".to_vec())],
        13 => vec![("content-type", b"application/grpc-web+proto".to_vec())],
        14 => vec![("grpc-encoding", b"gzip".to_vec())],
        15 => vec![("grpc-timeout", b"never".to_vec())],
        16 => vec![("grpc-timeout", b"0n".to_vec())],
        17 => vec![("authorization", choices.bytes())],
        18 => vec![("x-modal-auth-token", choices.bytes())],
        19 => vec![("x-modal-token-id", Vec::new())],
        20 => vec![("x-idempotency-key", b"always the same".to_vec())],
        21 => vec![("x-something-bin", choices.bytes())],
        22 => vec![("x-modal-libmodal-version", choices.bytes())],
        23 => vec![("grpc-accept-encoding", choices.bytes())],
        _ => Vec::new(),
    }
}
