package models_test

import (
	"strings"
	"testing"

	"gatehouse/models"
)

func TestClientList(t *testing.T) {
	list, err := models.NewClientList("192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "2001:dba::1", "user:42", "::ffff:198.51.100.1")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{
		"ip:192.0.2.7": true, "192.0.2.7": true, "ip:192.0.2.8": false, "anonymous:10.9.8.7": true, "ip:11.0.0.1": false,
		"ip:2001:db8:1:2f00::/56": true, "2001:db8:1::1": true, "ip:2001:dba::/56": false, "ip:2001:dba::1": true,
		"2001:db8:1:2f00::/56": true, "2001:dbb:1::/56": false, "no-header:x:192.0.2.7": true, "no-header:x:192.0.2.8": false, "no-header:x:2001:db8:1::/56": true,
		"user:42": true, "user:4": false, "user:421": false, "": false, "ip:": false, "ip:198.51.100.1": true,
	} {
		if got := list.HasKey(key); got != want {
			t.Errorf("HasKey(%q) = %v, want %v", key, got, want)
		}
	}
	// The rest of an address is not another one.
	private, err := models.NewClientList("fd00::/8")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"2a00:fd00:1:200::/56": false, "ip:2a00:fd00:1:200::/56": false, "2a00:fd00::1": false, "fd00:1:2:300::/56": true, "ip:fd00::1": true, "fd00:1:2:300::/56@0a1b": false} {
		if got := private.HasKey(key); got != want {
			t.Errorf("fd00::/8 has %q: %v, want %v", key, got, want)
		}
	}
	for address, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "2001:db8::5": true, "user:42": false, "": false} {
		if got := list.HasAddress(address); got != want {
			t.Errorf("HasAddress(%q) = %v, want %v", address, got, want)
		}
	}
	for _, bad := range []string{"", "10.0.0.0/33", "user/42", "a b"} {
		if _, err := models.NewClientList(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	networks, err := models.NewNetworkList("192.0.2.7", "10.1.0.0/8")
	if err != nil || !networks.HasAddress("192.0.2.7") || !networks.HasAddress("10.9.9.9") || networks.HasAddress("192.0.2.8") {
		t.Errorf("%+v, %v", networks, err)
	}
	for _, bad := range []string{"", "10.0.0.0/33", "user:42", "x"} {
		if _, err := models.NewNetworkList("10.0.0.0/8", bad); err == nil || strings.Contains(err.Error(), "a key") {
			t.Errorf("%q is no network: %v", bad, err)
		}
	}
	if (models.ClientList{}).HasKey("user:42") {
		t.Error("an empty list has a client")
	}
}
