//go:build linux

package agent

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func FuzzDirectTCPIP(f *testing.F) {
	type open struct {
		Host string
		Port uint32
		O    string
		P    uint32
	}
	f.Add(ssh.Marshal(open{"localhost", 80, "127.0.0.1", 1}))
	f.Add(ssh.Marshal(open{"::1", 65536, "", 0}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, payload []byte) {
		address, err := parseDirectTCPIP(payload)
		if err != nil {
			return
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil && !strings.ContainsAny(address, "[]") { // those end as a failed dial
			t.Fatalf("%q: %v", address, err)
		}
		n, err := strconv.Atoi(port)
		if err == nil && (host == "" || n > 65535 || strings.ContainsRune(host, 0)) {
			t.Fatalf("%q", address)
		}
	})
}

func FuzzSocketPaths(f *testing.F) {
	f.Add(ssh.Marshal(struct {
		P, R string
		N    uint32
	}{"/run/s", "", 0}))
	f.Add(ssh.Marshal(struct{ P string }{"@s"}))
	f.Fuzz(func(t *testing.T, payload []byte) {
		g := &guest{server: &Server{host: &host{dir: "/task"}}}
		check := func(path string) {
			full, err := g.socketPath(path)
			if err == nil && (!filepath.IsAbs(full) || len(full) > 107 || strings.ContainsRune(full, 0)) {
				t.Fatalf("%q became %q", path, full)
			}
		}
		if path, err := parseDirectStreamlocal(payload); err == nil {
			check(path)
		}
		if key, err := parseStreamlocalForward(payload); err == nil {
			check(key.address)
		}
	})
}

func FuzzTCPIPForward(f *testing.F) {
	f.Add(ssh.Marshal(forwardArgs{"localhost", 8080}))
	f.Add(ssh.Marshal(forwardArgs{"", 1 << 16}))
	f.Fuzz(func(t *testing.T, payload []byte) {
		key, err := parseTCPIPForward(payload)
		if err != nil {
			return
		}
		if string(ssh.Marshal(forwardArgs{key.address, key.port})) != string(payload) || key.port > 65535 {
			t.Fatalf("%+v of %x", key, payload)
		}
		if addrs, err := bindAddrs(t.Context(), key.address, false); err != nil || len(addrs) == 0 || !addrs[0].IsLoopback() {
			t.Fatalf("%q: %v, %v", key.address, addrs, err)
		}
	})
}
