package main

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"testing"
)

// TestAdminPeer is the kernel's word, not that of the command.
func TestAdminPeer(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := adminPeer(accepted), fmt.Sprintf("%s (process %d)", me.Username, os.Getpid()); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
