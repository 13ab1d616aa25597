//! DNS responses for the resolver in a container: the part of RFC 1035 that stub resolvers use.
//!
//! Supports queries over UDP with exactly one name. A and AAAA queries are answered with the addresses that
//! [`crate::names`] returns; queries for other record types get a response without records.

use std::net::IpAddr;

use crate::names::Failure;

/// Largest DNS message over UDP in RFC 1035, in bytes. No response is larger, so resolvers never have to retry over TCP.
const MOST: usize = 512;

/// Time to live of the records, in seconds. It is short because the machine's own resolver does the caching.
const TTL: u32 = 5;

const HEADER: usize = 12;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

// Response codes.
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// A DNS query with one question.
#[derive(Debug)]
pub(crate) struct Question {
    id: [u8; 2],
    recursion_desired: bool,
    /// The question section as received: name, type, class.
    bytes: Vec<u8>,
    name: String,
    kind: u16,
    class: u16,
}

impl Question {
    /// Parses a DNS message. Returns `None` if the message is malformed, is not a standard query, or does not have
    /// exactly one question.
    pub(crate) fn parse(message: &[u8]) -> Option<Question> {
        let header = message.get(..HEADER)?;
        let is_answer = header[2] & 0x80 != 0;
        let opcode = header[2] >> 3 & 0xf;
        if is_answer || opcode != 0 || header[4..6] != [0, 1] {
            return None;
        }
        let rest = &message[HEADER..];
        let (mut name, mut at) = (String::new(), 0);
        loop {
            let length = usize::from(*rest.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // A length above 63 marks a compression pointer, which is invalid here because no name precedes the first
            // one.
            if length > 63 {
                return None;
            }
            let label = std::str::from_utf8(rest.get(at..at + length)?).ok()?;
            if label.contains(['.', '\0']) {
                return None;
            }
            name.push_str(label);
            name.push('.');
            at += length;
        }
        if name.is_empty() || name.len() > 254 {
            return None;
        }
        let fixed = rest.get(at..at + 4)?;
        Some(Question {
            id: [header[0], header[1]],
            recursion_desired: header[2] & 1 != 0,
            bytes: rest[..at + 4].to_vec(),
            name,
            kind: u16::from_be_bytes([fixed[0], fixed[1]]),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
        })
    }

    /// Returns the queried name, with a trailing dot.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Builds the response to this query: the addresses of the queried type, or the response code for the failure.
    pub(crate) fn answer(&self, found: &Result<Vec<IpAddr>, Failure>) -> Vec<u8> {
        let (code, addresses) = match found {
            Ok(addresses) => (NO_ERROR, addresses.as_slice()),
            Err(Failure::Unknown) => (NO_SUCH_NAME, [].as_slice()),
            Err(Failure::Unavailable) => (SERVER_FAILURE, [].as_slice()),
        };
        // Flags: this is a response, and recursion is available.
        let flags = [0x80 | u8::from(self.recursion_desired), 0x80 | code];
        let mut message = [self.id, flags, [0, 1], [0, 0], [0, 0], [0, 0]].concat();
        message.extend_from_slice(&self.bytes);
        let mut count: u16 = 0;
        for address in addresses {
            let data = match address {
                IpAddr::V4(v4) if self.kind == TYPE_A => v4.octets().to_vec(),
                IpAddr::V6(v6) if self.kind == TYPE_AAAA => v6.octets().to_vec(),
                _ => continue,
            };
            // A compression pointer to the name in the question section, which follows the header.
            let name = [0xc0, HEADER as u8];
            if self.class != CLASS_IN || message.len() + name.len() + 10 + data.len() > MOST {
                break;
            }
            message.extend_from_slice(&name);
            message.extend_from_slice(&self.kind.to_be_bytes());
            message.extend_from_slice(&CLASS_IN.to_be_bytes());
            message.extend_from_slice(&TTL.to_be_bytes());
            message.extend_from_slice(&(data.len() as u16).to_be_bytes());
            message.extend_from_slice(&data);
            count += 1;
        }
        message[6..8].copy_from_slice(&count.to_be_bytes());
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for the IPv4 addresses of `ab.c`.
    const ASKED: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02ab\x01c\x00\x00\x01\x00\x01";

    #[test]
    fn an_answer_repeats_the_question() {
        let question = Question::parse(ASKED).unwrap();
        assert_eq!(question.name(), "ab.c.");
        let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let answer = question.answer(&Ok(addresses.to_vec()));
        assert_eq!(answer[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[12..ASKED.len()], ASKED[12..]);
        assert_eq!(answer[ASKED.len()..], *b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xc0\x00\x02\x01");
        assert_eq!(question.answer(&Err(Failure::Unknown))[3] & 0xf, NO_SUCH_NAME);
        assert!(question.answer(&Ok(vec![addresses[0]; 1000])).len() <= MOST);
    }

    #[test]
    fn what_is_no_question_is_none() {
        for length in 0..ASKED.len() {
            assert!(Question::parse(&ASKED[..length]).is_none(), "{length}");
        }
        let mut pointer = ASKED.to_vec();
        pointer[12] = 0xc0;
        assert!(Question::parse(&pointer).is_none());
        let mut answer = ASKED.to_vec();
        answer[2] |= 0x80;
        assert!(Question::parse(&answer).is_none());
    }
}
