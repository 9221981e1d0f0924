package models

import (
	"fmt"
	"net/netip"
	"strings"
)

// ClientList names clients: by network, by address, or by rate limit key. The
// zero value is empty. It is not changed once made.
type ClientList struct {
	networks []netip.Prefix
	keys     map[string]bool
}

// NewClientList reads entries such as "192.0.2.7", "10.0.0.0/8" and "user:42". An
// entry that has a slash must be a network.
func NewClientList(entries ...string) (ClientList, error) {
	l := ClientList{keys: map[string]bool{}}
	for _, entry := range entries {
		if ip, err := netip.ParseAddr(entry); err == nil {
			ip = ip.Unmap().WithZone("")
			l.networks = append(l.networks, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		network, err := netip.ParsePrefix(entry)
		switch {
		case err == nil:
			l.networks = append(l.networks, network.Masked())
		case entry == "" || strings.ContainsAny(entry, "/ \t\r\n"):
			return ClientList{}, fmt.Errorf("%q is not allowed: must be an address, a network such as 10.0.0.0/8, or a key such as user:42", entry)
		default:
			l.keys[entry] = true
		}
	}
	return l, nil
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

// HasKey reports whether a rate limit key is listed: itself, or the address or
// network that it is or ends in, as in "ip:192.0.2.7". That is the longest end of
// it, after a colon, that is one, so "x:2001:db8::1" is never taken for db8::1. A
// network is listed if all of it is, so an IPv6 client, who counts as a /56, needs
// an entry that wide.
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
