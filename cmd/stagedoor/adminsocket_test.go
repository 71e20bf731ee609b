package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// whoAnswers asks at an admin socket.
func whoAnswers(t *testing.T, socket string) string {
	t.Helper()
	a := &adminCommand{ctx: t.Context()}
	data, err := a.exchange(socket, "/", nil)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// TestAdminSocketIsHandedOver has a successor take the socket of a gateway that
// drains, whose end leaves it alone.
func TestAdminSocketIsHandedOver(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin.sock")
	var serving sync.WaitGroup
	start := func(name string) *adminServer {
		t.Helper()
		a, err := newAdminServer(socket, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() {
			if err := a.serve(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		return a
	}
	if err := os.WriteFile(socket, nil, 0o666); err != nil { // of one that was killed
		t.Fatal(err)
	}
	older := start("older")
	if got := whoAnswers(t, socket); got != "older" {
		t.Errorf("%q answers", got)
	}
	newer := start("newer")
	older.close()
	if got := whoAnswers(t, socket); got != "newer" {
		t.Errorf("%q answers", got)
	}
	newer.close()
	serving.Wait()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if got := whoAnswers(t, socket); !strings.Contains(got, "no gateway answers") {
		t.Errorf("%q answers", got)
	}
}

// TestAdminSocketNowhere says what to do where no socket can be made.
func TestAdminSocketNowhere(t *testing.T) {
	_, err := newAdminServer(filepath.Join(t.TempDir(), "none", "admin.sock"), nil, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "private.admin_socket: ") || !strings.Contains(err.Error(), `"off"`) {
		t.Errorf("%v", err)
	}
	if a, err := newAdminServer("", nil, nil); a != nil || err != nil {
		t.Errorf("off: %v, %v", a, err)
	}
}

// TestDefaultAdminSocket is in the state directory, while the gateway runs.
func TestDefaultAdminSocket(t *testing.T) {
	r := startDaemon(t, "")
	socket := filepath.Join(r.dir, "state", adminSocketFile)
	if info, err := os.Stat(socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("by default: %v, %v", info, err)
	}
	r.cancel()
	err := <-r.done
	r.done <- err // for the clean-up
	if err != nil {
		t.Errorf("the gateway ended with %v", err)
	}
	c := DefaultConfig()
	c.Private.AdminSocket, c.StateDir = "off", r.dir
	if c.adminSocket() != "" {
		t.Errorf("off is %s", c.adminSocket())
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
}
