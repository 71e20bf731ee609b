package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/stagedoor/stagedoor/gateway"
)

// adminSocketFile is the socket in the state directory.
const adminSocketFile = "admin.sock"

// adminSocket is where the gateway takes commands from its operator, "" for
// nowhere.
func (c *Config) adminSocket() string {
	switch c.Private.AdminSocket {
	case "off":
		return ""
	case "":
		return filepath.Join(c.StateDir, adminSocketFile)
	}
	return c.Private.AdminSocket
}

// adminServer answers on the admin socket. The nil one does nothing.
type adminServer struct {
	path   string
	made   os.FileInfo // tells our socket from a successor's
	l      net.Listener
	server *http.Server
}

// newAdminServer takes the path, also from a gateway that drains: its operator
// means the successor. Without a path there is none.
func newAdminServer(path string, h http.Handler, log *slog.Logger) (*adminServer, error) {
	if path == "" {
		return nil, nil
	}
	l, made, err := listenAdmin(path)
	if err != nil {
		return nil, fmt.Errorf("private.admin_socket: %w; its directory has to exist and be the gateway's, under systemd RestrictAddressFamilies= "+
			"has to name AF_UNIX, and \"off\" does without", err)
	}
	return &adminServer{path: path, made: made, l: l, server: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return gateway.WithAdminPeer(ctx, adminPeer(c))
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}, nil
}

// listenAdmin makes the socket where nobody else can reach it, and moves it into
// its place once it is for its owner alone.
func listenAdmin(path string) (_ net.Listener, made os.FileInfo, err error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".a") // mode 0700
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	passing := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: passing, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	l.SetUnlinkOnClose(false) // by then it is elsewhere
	if err = os.Chmod(passing, 0o600); err == nil {
		err = os.Rename(passing, path)
	}
	if err == nil {
		made, err = os.Stat(path)
	}
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	return l, made, nil
}

// serve answers until close is called.
func (a *adminServer) serve() error {
	if a == nil {
		return nil
	}
	if err := a.server.Serve(a.l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listen on %s: %w", a.path, err)
	}
	return nil
}

// close ends serve and removes the socket, unless a successor has taken its place.
func (a *adminServer) close() {
	if a == nil {
		return
	}
	a.server.Close()
	a.l.Close()
	if now, err := os.Stat(a.path); err == nil && os.SameFile(now, a.made) {
		os.Remove(a.path)
	}
}
