//! Addresses that a node, or the cloud around it, answers: there its credentials are given out.
//!
//! A tenant writes the URLs that a hub in a cluster calls, so these are kept from it twice: by the
//! hub before it connects, and by the policies that the operator writes. Both ask here, so that
//! neither knows of an address that the other doesn't. Private addresses are no matter of this list:
//! providers live there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of addresses of version 4: its first address and the length of its prefix.
type Block = (Ipv4Addr, u8);

/// Link-local addresses (RFC 3927): metadata of Amazon, Google, Azure, Oracle, OpenStack and most
/// others, Amazon's credentials for containers (169.254.170.2 and .23), and name servers of nodes.
const LINK_LOCAL: Block = (Ipv4Addr::new(169, 254, 0, 0), 16);
/// Azure's `WireServer`, "What is IP address 168.63.129.16?" in its documentation.
const AZURE: Block = (Ipv4Addr::new(168, 63, 129, 16), 32);
/// Alibaba's metadata, "View instance metadata" in the documentation of its ECS.
const ALIBABA: Block = (Ipv4Addr::new(100, 100, 100, 200), 32);
/// Metadata of Oracle's Compute Classic, as cloud-init's and other clients have it.
const ORACLE_CLASSIC: Block = (Ipv4Addr::new(192, 0, 0, 192), 32);

const V4: [Block; 4] = [LINK_LOCAL, AZURE, ALIBABA, ORACLE_CLASSIC];

/// Metadata at addresses of version 6 that aren't link-local.
const V6: [Ipv6Addr; 6] = [
    // Amazon's metadata, "Access instance metadata" in the documentation of EC2.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    // Amazon's credentials for pods, "EKS Pod Identity" in the documentation of EKS.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // Google's metadata for machines of version 6 alone, "Query VM metadata".
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Oracle's metadata, the address in its own SDKs.
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    // Scaleway's metadata, cloud-init's data source for it.
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    // Linode's metadata, cloud-init's data source for it.
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
];

/// Prefixes of 96 bits under which a translator serves addresses of version 4: the well-known one
/// (RFC 6052), and the first of those for local use (RFC 8215).
const TRANSLATED: [[u16; 6]; 2] = [[0x64, 0xff9b, 0, 0, 0, 0], [0x64, 0xff9b, 1, 0, 0, 0]];

/// Whether an address is answered by the node or its cloud, in whichever form it is written.
#[must_use]
pub fn is_nodes(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => V4.iter().any(|block| contains(*block, v4)),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || V6.contains(&v6)
                || embedded(v6).is_some_and(|v4| is_nodes(IpAddr::V4(v4)))
        }
    }
}

fn contains((first, bits): Block, address: Ipv4Addr) -> bool {
    let mask = u32::MAX << (32 - u32::from(bits));
    u32::from(address) & mask == u32::from(first)
}

/// The IPv4 address in one of version 6: mapped or compatible (RFC 4291), translated (RFC 6052 and,
/// with the length that is used, RFC 8215), or tunnelled (RFC 3056).
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(joined(high, low)),
        _ => None,
    }
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

/// The blocks of version 4, as a policy writes them.
#[must_use]
pub fn blocks() -> Vec<String> {
    V4.iter()
        .map(|(first, bits)| format!("{first}/{bits}"))
        .collect()
}

/// Those of version 6: their own, and by which ways those of version 4 are reached from there. Mapped
/// and compatible addresses are on no wire, and Kubernetes takes no policy that names one.
#[must_use]
pub fn blocks_v6() -> Vec<String> {
    let mut blocks = vec!["fe80::/10".to_owned()];
    blocks.extend(V6.iter().map(|address| format!("{address}/128")));
    for (first, bits) in V4 {
        let [high, low] = [u32::from(first) >> 16, u32::from(first) & 0xffff]
            .map(|half| u16::try_from(half).unwrap_or_default());
        for [a, b, c, d, e, f] in TRANSLATED {
            let translated = Ipv6Addr::new(a, b, c, d, e, f, high, low);
            blocks.push(format!("{translated}/{}", 96 + bits));
        }
        let tunnelled = Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 0);
        blocks.push(format!("{tunnelled}/{}", 16 + bits));
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [&str; 22] = [
        "169.254.169.254",
        "169.254.170.23",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fe80::1",
        "febf::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fd00:a9fe:a9fe::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::168.63.129.16",
        "64:ff9b::100.100.100.200",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2002:6464:64c8::1",
        "::ffff:169.254.169.254",
        "::ffff:100.100.100.200",
        "::169.254.169.254",
    ];

    #[test]
    fn what_answers_as_the_node_is_known_in_every_form() {
        for text in NODES {
            assert!(is_nodes(text.parse().unwrap()), "{text}");
        }
        for text in [
            "10.0.0.1",
            "127.0.0.1",
            "100.100.100.199",
            "169.253.255.255",
            "168.63.129.17",
            "192.0.0.193",
            "::1",
            "fd00:ec2::1",
            "fd20:ce::1",
            "64:ff9b::a00:1",
            "2001:db8::a9fe:a9fe",
            "2002:808:808::1",
        ] {
            assert!(!is_nodes(text.parse().unwrap()), "{text}");
        }
    }

    /// Reads a block again and says whether an address lies in it.
    fn lies_in(address: IpAddr, block: &str) -> bool {
        let (first, bits) = block.split_once('/').unwrap();
        let (first, bits): (IpAddr, u32) = (first.parse().unwrap(), bits.parse().unwrap());
        match (first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (u32::from(first) ^ u32::from(address)).leading_zeros() >= bits
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                (u128::from(first) ^ u128::from(address)).leading_zeros() >= bits
            }
            _ => false,
        }
    }

    #[test]
    fn a_policys_blocks_hold_what_the_hub_refuses_but_what_is_on_no_wire() {
        let blocks = [blocks(), blocks_v6()].concat();
        for text in NODES {
            let address = text.parse().unwrap();
            let is_written = blocks.iter().any(|block| lies_in(address, block));
            assert_eq!(is_written, !text.starts_with("::"), "{text}");
        }
    }

    #[test]
    fn a_block_begins_with_its_first_address() {
        for block in [blocks(), blocks_v6()].concat() {
            let (first, bits) = block.split_once('/').unwrap();
            let bits: u32 = bits.parse().unwrap();
            let zeros = match first.parse().unwrap() {
                IpAddr::V4(first) => u32::from(first).trailing_zeros(),
                IpAddr::V6(first) => u128::from(first).trailing_zeros(),
            };
            let length = if first.contains(':') { 128 } else { 32 };
            assert!(length - bits <= zeros, "{block}");
        }
    }
}
