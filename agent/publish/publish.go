// Package publish tells other programs how a task fares: by a file, a command, a webhook or a message.
//
//	p := publish.New(log, &publish.File{Path: "stagedoor.json"}, &publish.Webhook{URL: url})
//	defer p.Close(ctx)
//	p.Publish(report)
//
// Nothing that a [Sink] does, or fails to do, holds up the one who publishes. A sink that is slow misses reports, but never the
// last one.
package publish

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A Sink takes reports. Its methods are never called at once.
type Sink interface {
	// Publish passes a report on. Its error holds no secret.
	Publish(ctx context.Context, r Report) error
	// Name says what it is, in an error's text: "webhook". It holds no secret.
	Name() string
}

// A Publisher passes reports on to its sinks.
type Publisher struct {
	log    *slog.Logger
	cancel context.CancelFunc
	boxes  []*mailbox
	wg     sync.WaitGroup
}

// New returns a Publisher, which must be closed. A nil log logs nothing.
func New(log *slog.Logger, sinks ...Sink) *Publisher {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Publisher{log: log, cancel: cancel}
	for _, sink := range sinks {
		box := &mailbox{ready: make(chan struct{}, 1)}
		p.boxes = append(p.boxes, box)
		p.wg.Go(func() { p.serve(ctx, sink, box) })
	}
	return p
}

// Publish passes a report on, some time soon. It never blocks. A report after Close goes nowhere.
func (p *Publisher) Publish(r Report) {
	for _, box := range p.boxes {
		box.put(r)
	}
}

// Close waits until the last report has arrived everywhere, or has failed to, at most until ctx ends.
func (p *Publisher) Close(ctx context.Context) {
	for _, box := range p.boxes {
		box.close()
	}
	stop := context.AfterFunc(ctx, p.cancel)
	p.wg.Wait()
	stop()
	p.cancel()
}

const (
	tries   = 3
	pause   = 2 * time.Second // between them
	timeout = 10 * time.Second
)

func (p *Publisher) serve(ctx context.Context, sink Sink, box *mailbox) {
	for {
		r, ok := box.take(ctx)
		if !ok {
			return
		}
		if err := deliver(ctx, sink, r, box); err != nil {
			p.log.Warn("cannot publish how the task fares", "to", sink.Name(), "error", err)
		}
	}
}

// deliver tries again what may work later, unless there is something newer or somebody waits for the end.
func deliver(ctx context.Context, sink Sink, r Report, box *mailbox) error {
	for try := 1; ; try++ {
		inner, cancel := context.WithTimeout(ctx, timeout)
		err := sink.Publish(inner, r)
		cancel()
		if err == nil || try == tries || ctx.Err() != nil || box.isClosed() {
			return err
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-box.ready:
			box.wake()
			wait.Stop()
			return err
		case <-ctx.Done():
			wait.Stop()
			return err
		}
	}
}

// mailbox holds the newest report that was not taken yet.
type mailbox struct {
	ready chan struct{} // of one element: there is something to look at

	mu     sync.Mutex // guards what follows
	report *Report
	closed bool
}

func (b *mailbox) put(r Report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.report = &r
		b.wake()
	}
}

func (b *mailbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wake()
}

func (b *mailbox) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

func (b *mailbox) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// take waits for a report; false when there will be none.
func (b *mailbox) take(ctx context.Context) (Report, bool) {
	for {
		b.mu.Lock()
		r, closed := b.report, b.closed
		b.report = nil
		b.mu.Unlock()
		switch {
		case r != nil:
			return *r, true
		case closed:
			return Report{}, false
		}
		select {
		case <-b.ready:
		case <-ctx.Done():
			return Report{}, false
		}
	}
}
