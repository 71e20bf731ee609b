package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/cmd/internal/logs"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/gateway/audit"
)

// daemon is a gateway from its start to its end.
type daemon struct {
	source  source
	stderr  io.Writer
	signals <-chan os.Signal // SIGHUP reloads, any other ends

	level        slog.LevelVar
	log          *slog.Logger
	config       *Config // in force
	certificates certificates
	partners     partners
	listeners    *listeners
	audit        *audit.Stream // nil: off
	server       *gateway.Server
	private      *http.Server
	admin        *adminServer // nil: off
}

// run starts the gateway and returns when it has ended. With ctx it ends at
// once.
func (d *daemon) run(ctx context.Context) error {
	defer d.partners.close() // the gateway has ended by then
	defer d.closeAudit()
	settings, err := d.start(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	d.serve(group)
	if d.config.HTTPS.Certificate == "" {
		manager, domain := d.certificates.acme(d.config), d.config.Domain
		group.Go(func() error {
			manager.fetchCertificate(ctx, domain, d.log)
			return nil
		})
	}
	d.announce(settings)
	err = d.untilSignal(ctx)
	d.private.Close()
	d.admin.close()
	cancel()
	if served := group.Wait(); err == nil {
		err = served
	}
	return err
}

// start loads and binds everything. It fails before anybody can connect.
func (d *daemon) start(ctx context.Context) (settings gateway.Settings, err error) {
	config, r := d.source.load()
	d.config = config
	if err := d.openLog(); err != nil && r.ok() {
		return settings, err
	}
	d.partners.log = d.log
	settings = config.settings(r, &d.certificates, &d.partners, r.ok())
	if !r.ok() {
		r.print(d.stderr)
		return settings, cli.ExitStatus(cli.Failed)
	}
	d.warn(r)
	for _, key := range r.made {
		d.log.Info("key made on the first start: keep a copy", "file", key.file, "purpose", key.purpose)
	}
	if err := d.openAudit(); err != nil {
		return settings, err
	}
	if d.listeners, err = config.listen(ctx); err != nil {
		return settings, err
	}
	d.fillPorts(&settings)
	var memory collector
	if d.server, err = gateway.New(settings, gateway.Options{Logger: d.log, StateDir: d.config.StateDir, Audit: d.audit, Pressed: memory.press}); err != nil {
		d.listeners.close()
		return settings, err
	}
	d.private = &http.Server{
		Handler:           d.server.PrivateHandler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	if d.admin, err = newAdminServer(config.adminSocket(), d.server.AdminHandler(), d.log); err != nil {
		d.listeners.close()
		d.server.Close()
		return settings, err
	}
	return settings, nil
}

func (d *daemon) openLog() error {
	level, err := logs.ParseLevel(d.config.Log.Level)
	if err != nil {
		return err
	}
	d.level.Set(level)
	h, err := logs.Handler(d.stderr, &d.level, d.config.Log.Format)
	if err != nil {
		return err
	}
	d.log = slog.New(h)
	return nil
}

func (d *daemon) openAudit() (err error) {
	if off(d.config.Audit.File) {
		return nil
	}
	if d.audit, err = audit.Open(d.config.Audit.File, d.log); err != nil {
		return fmt.Errorf("audit.file: %w; its directory has to exist, and the gateway's user to be allowed to write there", err)
	}
	return nil
}

func (d *daemon) closeAudit() {
	if err := d.audit.Close(); err != nil {
		d.log.Error("the audit stream is not whole", "error", err)
	}
}

func (d *daemon) warn(r *report) {
	for _, m := range r.warnings {
		d.log.Warn("configuration looks like an oversight", "warning", m.Error())
	}
}

// fillPorts puts the ports that the system chose in the place of 0.
func (d *daemon) fillPorts(settings *gateway.Settings) {
	forGuests := d.listeners.ssh
	if forGuests == nil {
		forGuests = d.listeners.https
	}
	settings.Address = boundAddress(settings.Address, forGuests)
	settings.HTTPSAddress = boundAddress(settings.HTTPSAddress, d.listeners.https)
}

func boundAddress(address string, l net.Listener) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != "0" {
		return address
	}
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return net.JoinHostPort(host, port)
}

// serve accepts connections until the gateway drains or closes.
func (d *daemon) serve(group *errgroup.Group) {
	accept := func(l net.Listener, serve func(net.Listener) error, ended error) {
		if l == nil {
			return
		}
		group.Go(func() error {
			if err := serve(l); !errors.Is(err, ended) {
				return fmt.Errorf("listen on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	accept(d.listeners.ssh, d.server.ServeSSH, gateway.ErrClosed)
	accept(d.listeners.https, d.server.ServeHTTPS, gateway.ErrClosed)
	accept(d.listeners.private, d.private.Serve, http.ErrServerClosed)
	group.Go(d.admin.serve)
}

// announce logs what an operator compares with what they meant.
func (d *daemon) announce(settings gateway.Settings) {
	for _, one := range []struct {
		name string
		l    net.Listener
	}{{"ssh", d.listeners.ssh}, {"https", d.listeners.https}, {"private", d.listeners.private}} {
		if one.l != nil {
			d.log.Info("listening", "listener", one.name, "address", one.l.Addr().String())
		}
	}
	for _, key := range settings.HostKeys {
		d.log.Info("host key", "type", key.PublicKey().Type(), "fingerprint", ssh.FingerprintSHA256(key.PublicKey()))
	}
	d.log.Info("gateway ready", "ssh_address", settings.Address, "state_dir", d.config.StateDir)
}

// untilSignal reloads on SIGHUP and returns when the gateway has ended, by a
// signal, by ctx or because a listener failed.
func (d *daemon) untilSignal(ctx context.Context) error {
	for {
		select {
		case s := <-d.signals:
			if s == syscall.SIGHUP {
				d.audit.Reopen()
				d.reload()
				continue
			}
			d.log.Info("draining; a second signal ends at once", "signal", s.String(),
				"lame_duck", d.config.Drain.LameDuck, "deadline", d.config.Drain.Deadline)
			return d.drain(ctx)
		case <-ctx.Done():
			return d.server.Close()
		}
	}
}

// drain ends the gateway in peace, or at once with ctx or a second signal.
func (d *daemon) drain(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	drained := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.endOnSecondSignal(drained, cancel)
	}()
	defer func() { close(drained); <-ended }()

	d.server.SetReady(false)
	lameDuck := time.NewTimer(d.config.Drain.LameDuck)
	defer lameDuck.Stop()
	select {
	case <-lameDuck.C:
	case <-ctx.Done():
	}
	d.private.Close() // its port, too, is the successor's now
	ctx, cancelDeadline := context.WithTimeout(ctx, d.config.Drain.Deadline)
	defer cancelDeadline()
	if err := d.server.Drain(ctx); err != nil {
		// What was asked for has been done: not a failure of this process.
		d.log.Warn("sessions were cut off", "error", err)
	}
	d.log.Info("gateway ended")
	return nil
}

func (d *daemon) endOnSecondSignal(drained <-chan struct{}, end func()) {
	for {
		select {
		case s := <-d.signals:
			if s == syscall.SIGHUP {
				d.audit.Reopen()
				d.log.Warn("not reloading while draining")
				continue
			}
			d.log.Warn("second signal: ending at once", "signal", s.String())
			end()
			return
		case <-drained:
			return
		}
	}
}

// reload takes new settings, or keeps the old ones and says why.
func (d *daemon) reload() {
	config, r := d.source.load()
	if r.ok() {
		d.keepFixed(config)
	}
	settings := config.settings(r, &d.certificates, &d.partners, r.ok())
	d.warn(r)
	for _, m := range r.all() {
		d.log.Error("configuration not reloaded, the old one stays in force", "mistake", m.Error())
	}
	if !r.ok() {
		return
	}
	d.fillPorts(&settings)
	if err := d.server.Reload(settings); err != nil {
		d.log.Error("configuration not reloaded, the old one stays in force", "error", err)
		return
	}
	d.config = config
	if level, err := logs.ParseLevel(config.Log.Level); err == nil {
		d.level.Set(level)
	}
	d.log.Info("configuration reloaded", "file", d.source.File)
}

// keepFixed carries over what cannot change while the gateway runs, and says
// so where the file asks for it.
func (d *daemon) keepFixed(config *Config) {
	now := fields(d.config)
	for i, f := range fields(config) {
		switch f.Key {
		case "ssh.listen", "https.listen", "private.listen", "private.admin_socket", "state_dir", "log.format", "audit.file", "limits.buffered_bytes", proxyFrom:
			if !reflect.DeepEqual(f.Value.Interface(), now[i].Value.Interface()) {
				d.log.Warn("a setting changed that takes a restart", "key", f.Key, "from", fmt.Sprint(now[i].Value), "to", fmt.Sprint(f.Value))
				f.Value.Set(now[i].Value)
			}
		}
	}
}
