package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/agent/publish"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/cmd/internal/logs"
	"github.com/stagedoor/stagedoor/tunnel"
)

// A door is an agent that lets guests in while this process does something else.
type door struct {
	host       *agent.Agent
	place      place
	stop       context.CancelFunc
	registered chan struct{} // closed once guests can enter
	done       chan struct{} // closed when the agent has ended
	err        error         // of the agent, to be read after done

	jobLog    io.Writer // for what no other program is told
	announcer *announcer
	log       *publish.Publisher // the job's: the announcer alone
	others    *publish.Publisher // other programs

	mu     sync.Mutex // guards report
	report publish.Report
}

// noAccess says why nobody is let in, where that is no failure.
type noAccess string

func (e noAccess) Error() string { return string(e) }

// open starts an agent at a place. ctx bounds only the start: the door is open
// until close. The error is a noAccess where nobody asked for one.
func (c *config) open(ctx context.Context, a *announcer, claim func() (place, error)) (*door, error) {
	provider := currentProvider()
	if c.token == "" && (provider == nil || c.gateway == "") {
		return nil, noAccess("no token (STAGEDOOR_TOKEN), so nobody gets access to this task")
	}
	if c.gateway == "" {
		return nil, cli.UsageError("there is a token, but no gateway: name it with --gateway or STAGEDOOR_GATEWAY")
	}
	if _, err := tunnel.ParseGateway(c.gateway); err != nil {
		return nil, cli.UsageError("%w", err)
	}
	if err := hideFromGuests(); err != nil {
		return nil, fmt.Errorf("keep the token from guests: %w", err)
	}
	log, err := logs.New(a.log, c.logLevel, c.logFormat)
	if err != nil {
		return nil, err
	}
	if !a.system.Deadline.IsZero() {
		c.clocks.Latest = a.system.Deadline.Add(-hold.Margin)
	}
	host, err := c.agent(log)
	if err != nil {
		return nil, err
	}
	if c.token == "" {
		host.NewToken = c.newToken(provider)
	}
	d := &door{host: host, jobLog: a.log, registered: make(chan struct{}), done: make(chan struct{})}
	if d.place, err = claim(); err != nil {
		host.Forges.Close()
		return nil, err
	}
	d.report.Job, d.report.Page = ci.Clean(a.system.Job), ci.Clean(a.system.Page)
	sinks := append(c.publishing.sinks(a.system, withoutSecrets()), &publish.File{Path: d.place.report()})
	d.announcer = a
	d.log, d.others = publish.New(log, a), publish.New(log, sinks...)
	d.start(ctx, c.env)
	return d, nil
}

// start runs the agent.
func (d *door) start(ctx context.Context, env []string) {
	host := d.host
	host.ControlSocket = d.place.socket()
	host.Program, _ = os.Executable()
	host.Env = env
	host.Registered, host.Changed = d.onRegistered, d.onChanged
	ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	var beats sync.WaitGroup
	beats.Go(func() { d.beat(ctx) })
	go func() {
		defer close(d.done)
		d.err = host.Run(ctx)
		d.stop()
		beats.Wait()
	}()
}

// beat repeats a report, so that the log says from time to time that a job waits.
func (d *door) beat(ctx context.Context) {
	tick := time.NewTicker(repeatAfter / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.mu.Lock()
			if d.report.Held {
				d.log.Publish(d.report)
			}
			d.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// change tells everybody what is new.
func (d *door) change(f func(*publish.Report)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.report)
	d.log.Publish(d.report)
	d.others.Publish(d.report)
}

func (d *door) onRegistered(r agent.Registration) {
	d.announcer.password.Store(&r.OneTimePassword) // for the log and nobody else
	first := false
	d.change(func(p *publish.Report) {
		first = p.Fingerprint == ""
		p.Task, p.SSHCommand, p.EndToEndCommand = string(r.Task), r.SSHCommand, r.EndToEndCommand
		p.CertifiedCommand, p.Fingerprint, p.Until = r.CertifiedCommand, r.Fingerprint, r.Deadline
	})
	if first {
		close(d.registered)
	}
}

func (d *door) onChanged(s hold.Status) {
	d.change(func(p *publish.Report) { p.Status = s })
}

// errEnded is returned for a door whose agent has ended, when result says why.
var errEnded = errors.New("the agent has ended")

// awaitRegistered waits until guests can enter.
func (d *door) awaitRegistered(ctx context.Context, patience time.Duration) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-d.registered:
		return nil
	case <-d.done:
		return errEnded
	case <-timeout.C:
		return fmt.Errorf("the gateway %s cannot be reached", d.host.Gateway)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the agent, if it has not ended by itself, telling guests why. It
// returns how the agent ended: nil if it was this that ended it.
func (d *door) close(why string) error {
	select {
	case <-d.done:
	default:
		d.host.End(why)
	}
	d.stop()
	<-d.done
	d.host.Forges.Close()
	closePublisher(d.log)
	closePublisher(d.others)
	d.place.remove()
	return d.result()
}

// result is how the agent has ended, with the status that connectHelp promises.
func (d *door) result() error {
	if missing, ok := errors.AsType[noPermission](d.err); ok {
		return noAccess("nobody gets access to this task: " + string(missing))
	}
	if errors.Is(d.err, context.Canceled) {
		return nil
	}
	return withStatus(d.err)
}
