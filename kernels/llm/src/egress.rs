//! What may leave the house.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use reqwest::Url;

use crate::endpoint::EndpointError;

/// Where requests, and with them report text, may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// Only to loopback and private addresses: 127/8, 10/8, 172.16/12, 192.168/16, ::1 and fc00::/7.
    PrivateOnly,
    /// To any address.
    Allow,
}

/// A host's name with the addresses to which connections are held.
pub(crate) struct PinnedHost {
    pub(crate) name: String,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Egress {
    /// Resolves the host of `url` once and checks every address. Connections then go to these addresses only, so a
    /// name that changes its address afterwards changes nothing (DNS rebinding).
    pub(crate) fn check(self, url: &Url) -> Result<PinnedHost, EndpointError> {
        let host = url.host_str().unwrap_or_default();
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let failed = |reason: String| EndpointError::Resolve { host: name.clone(), reason };
        let port = url.port_or_known_default().unwrap_or_default();
        let addresses: Vec<SocketAddr> =
            (name.as_str(), port).to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
        if addresses.is_empty() {
            return Err(failed("the resolver gave none".into()));
        }
        let public = addresses.iter().map(SocketAddr::ip).find(|&address| !is_loopback_or_private(address));
        match public {
            Some(address) if self == Self::PrivateOnly => {
                Err(EndpointError::PublicAddress { host: name, address })
            }
            _ => Ok(PinnedHost { name, addresses }),
        }
    }
}

/// Loopback (RFC 1122, RFC 4291), private (RFC 1918) and unique local (RFC 4193) addresses, also when IPv4 is
/// written as IPv6. Link-local addresses are not among them: clouds serve credentials there. Nor is 0.0.0.0, nor
/// 100.64/10, which providers share.
fn is_loopback_or_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        IpAddr::V6(address) => address == Ipv6Addr::LOCALHOST || address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_private_addresses_are_inside() {
        for inside in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "::1",
            "fd00::1",
            "::ffff:10.1.2.3",
        ] {
            assert!(is_loopback_or_private(inside.parse().unwrap()), "{inside}");
        }
    }

    #[test]
    fn every_other_address_is_outside() {
        for outside in [
            "8.8.8.8",
            "172.32.0.1",
            "192.169.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "::",
            "fe80::1",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::a00:1",
        ] {
            assert!(!is_loopback_or_private(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn odd_spellings_of_an_address_are_that_address() {
        let check =
            |url: &str| Egress::PrivateOnly.check(&Url::parse(url).unwrap()).map(|host| host.addresses);
        assert_eq!(check("http://2130706433:80/").unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        assert!(matches!(check("http://0x08080808/"), Err(EndpointError::PublicAddress { .. })));
        assert_eq!(check("http://[::1]:9/").unwrap(), ["[::1]:9".parse().unwrap()]);
    }
}
