package models

import (
	"fmt"
	"net/netip"
	"strings"
)

// ClientList is a list of clients: networks, addresses, and rate limit keys. The zero value is
// empty. A list does not change, so it is safe for concurrent use.
type ClientList struct {
	networks []netip.Prefix
	keys     map[string]bool
}

// NewClientList parses entries such as "192.0.2.7", "10.0.0.0/8" and "user:42". The error names an
// entry that is empty, has white space, or has a slash and is no network.
func NewClientList(entries ...string) (ClientList, error) {
	l := ClientList{keys: map[string]bool{}}
	for _, entry := range entries {
		network, err := networkOf(entry)
		switch {
		case err == nil:
			l.networks = append(l.networks, network)
		case entry == "" || strings.ContainsAny(entry, "/ \t\r\n"):
			return ClientList{}, fmt.Errorf("%q is not allowed: must be an address, a network such as 10.0.0.0/8, or a key such as user:42", entry)
		default:
			l.keys[entry] = true
		}
	}
	return l, nil
}

// NewNetworkList parses entries such as "192.0.2.7" and "10.0.0.0/8". The error names an entry
// that is neither an address nor a network.
func NewNetworkList(entries ...string) (ClientList, error) {
	var l ClientList
	for _, entry := range entries {
		network, err := networkOf(entry)
		if err != nil {
			return ClientList{}, fmt.Errorf("%q is not allowed: must be an address or a network such as 10.0.0.0/8", entry)
		}
		l.networks = append(l.networks, network)
	}
	return l, nil
}

func networkOf(entry string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(entry); err == nil {
		ip = ip.Unmap().WithZone("")
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	network, err := netip.ParsePrefix(entry)
	return network.Masked(), err
}

// HasAddress reports whether the address is in one of the networks.
func (l ClientList) HasAddress(address string) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	for _, network := range l.networks {
		if network.Contains(ip) {
			return true
		}
	}
	return false
}

// HasKey reports whether a rate limit key is listed: the key itself, or the address or network
// at its end, as in "ip:192.0.2.7". It takes the longest such end after a colon, so
// "x:2001:db8::1" is never db8::1. A network is listed only as a whole: an IPv6 client, which
// counts as a /56, needs an entry at least that wide.
func (l ClientList) HasKey(key string) bool {
	if l.keys[key] {
		return true
	}
	if len(l.networks) == 0 {
		return false
	}
	for end, found := key, true; found; _, end, found = strings.Cut(end, ":") {
		if _, err := netip.ParseAddr(end); err == nil {
			return l.HasAddress(end)
		}
		if network, err := netip.ParsePrefix(end); err == nil {
			return l.hasNetwork(network)
		}
	}
	return false
}

func (l ClientList) hasNetwork(network netip.Prefix) bool {
	for _, listed := range l.networks {
		if listed.Bits() <= network.Bits() && listed.Contains(network.Addr()) {
			return true
		}
	}
	return false
}
