package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// lookAround is how often a hold looks for what no event tells: programs that are busy, and the file that lets the job go.
const lookAround = 2 * time.Second

// continueFile is the name of a file that lets a held job go on, when it is made in the working directory.
const continueFile = "continue"

// holder is what an Agent knows of its job.
type holder struct {
	mu      sync.Mutex // guards the fields below
	job     *job       // nil unless the job is held
	command *hold.Command
	rerun   *int
	outcome *hold.Outcome // of the last hold
	over    string        // why the last hold is over, if the agent ends with it
	why     string        // End was told
	grant   *auth.Grant
	task    auth.TaskID
	tunnel  *tunnel.Listener // the newest
	up      bool             // it was not lost
	until   time.Time        // of the registration; zero: none
	ended   bool             // Run has returned

	setup   sync.Once
	changed chan struct{} // holds one: something is to be published
	ready   chan struct{} // closed when Run has read the token
	done    chan struct{} // closed when Run has returned
}

// job is a job that is held.
type job struct {
	why      hold.Reason
	clock    *hold.Clock // guarded by holder.mu
	present  bool        // somebody was, at the last look
	wake     chan struct{}
	released chan hold.Outcome          // holds one
	before   os.FileInfo                // of the file continue, nil if it was not there
	spent    map[*session]time.Duration // by programs, until
	looked   time.Time
}

// holding returns the holder, made.
func (a *Agent) holding() *holder {
	a.held.setup.Do(func() {
		a.held.changed, a.held.ready, a.held.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	})
	return &a.held
}

// log is the agent's, which names the task once that is known.
func (a *Agent) log() *slog.Logger {
	if a.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	return a.Logger.With("task", string(h.task))
}

// poke makes one that waits on c go on.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Hold keeps the job for its guests until somebody lets it go, its time is over, ctx ends, or Run returns: the clocks are those of
// Clocks and the grant. The outcome says which; guests are told it when the agent ends. Run must have been called, on another
// goroutine. A gateway that cannot be reached changes nothing about the clocks. The error wraps ErrHeld if the job is held
// already; there is no other.
func (a *Agent) Hold(ctx context.Context, why hold.Reason) (hold.Outcome, error) {
	o, err := a.hold(ctx, why, hold.Settings{})
	if err == nil {
		h := a.holding()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.over = o.Why
	}
	return o, err
}

// hold is Hold with clocks that go before those of the agent, for an agent that goes on afterwards.
func (a *Agent) hold(ctx context.Context, why hold.Reason, settings hold.Settings) (hold.Outcome, error) {
	if o := a.prepareHold(ctx, settings); o != nil {
		return *o, nil
	}
	j, err := a.beginHold(why, settings)
	if err != nil {
		return hold.Outcome{}, err
	}
	return a.endHold(j, a.await(ctx, j)), nil
}

// prepareHold waits until the token was read, which may be that of a CI provider who takes long. It returns an outcome when the
// hold is over before it has begun.
func (a *Agent) prepareHold(ctx context.Context, settings hold.Settings) *hold.Outcome {
	h := a.holding()
	patience := time.NewTimer(time.Until(hold.NewClock(settings.Or(a.Clocks), time.Now()).End()))
	defer patience.Stop()
	select {
	case <-h.ready:
		return nil
	case <-h.done:
		return outcome(hold.Lost)
	case <-patience.C:
		return outcome(hold.Expired)
	case <-ctx.Done():
		return outcome(hold.Canceled)
	}
}

// outcome is that of a hold which nobody has released.
func outcome(r hold.Result) *hold.Outcome {
	words := map[hold.Result]string{
		hold.Lost:     "the agent has ended",
		hold.Expired:  "the hold has expired",
		hold.Canceled: "the job was cancelled",
	}
	return &hold.Outcome{Result: r, Why: words[r]}
}

func (a *Agent) beginHold(why hold.Reason, settings hold.Settings) (*job, error) {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.job != nil {
		return nil, fmt.Errorf("hold the job: %w", ErrHeld)
	}
	now := time.Now()
	h.job = &job{
		why: why, clock: hold.NewClock(h.clocks(settings.Or(a.Clocks)), now),
		wake: make(chan struct{}, 1), released: make(chan hold.Outcome, 1), spent: make(map[*session]time.Duration),
	}
	h.job.before, _ = os.Stat(a.continuePath())
	if len(why.Command.Args) > 0 {
		h.command = &why.Command
	}
	h.outcome, h.over, h.why = nil, "", ""
	poke(h.changed)
	return h.job, nil
}

// clocks puts together what the caller, the agent's owner and the grant say. The grant has the last word on the hard end.
func (h *holder) clocks(settings hold.Settings) hold.Settings {
	settings = settings.Or(hold.Settings{Latest: h.until})
	if h.grant == nil {
		return settings
	}
	settings = settings.Or(hold.Settings{Latest: h.grant.Until})
	granted := h.grant.Hold
	if granted == nil {
		return settings
	}
	exactly := func(d *time.Duration) time.Duration {
		if d == nil {
			return 0
		}
		return hold.Exactly(*d)
	}
	return settings.Or(hold.Settings{Wait: exactly(granted.Wait), Grace: exactly(granted.Grace), Hard: exactly(granted.Hard)}).
		Capped(exactly(granted.Hard))
}

func (a *Agent) continuePath() string { return filepath.Join(a.Dir, continueFile) }

// await returns when the job is let go, and how.
func (a *Agent) await(ctx context.Context, j *job) hold.Outcome {
	for {
		next, over := a.look(j, time.Now())
		if over == nil {
			over = a.pause(ctx, j, time.Until(next))
		}
		if over != nil {
			return *over
		}
	}
}

// pause returns when it is time to look again, or the outcome when the hold is over.
func (a *Agent) pause(ctx context.Context, j *job, d time.Duration) *hold.Outcome {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-j.wake:
	case o := <-j.released:
		return &o
	case <-a.holding().done:
		return outcome(hold.Lost)
	case <-ctx.Done():
		return outcome(hold.Canceled)
	}
	return nil
}

// look brings the clock up to date and does what is due. It returns when to look again, or the outcome if the hold is over.
func (a *Agent) look(j *job, now time.Time) (next time.Time, over *hold.Outcome) {
	h := a.holding()
	guests, last := a.server.attached(), a.server.last()
	if a.busy(j, now) {
		last = now
	}
	h.mu.Lock()
	j.observe(len(guests) > 0, last)
	end := j.clock.End()
	n, due := j.clock.Notice(now)
	next = j.clock.Next(now)
	h.mu.Unlock()
	poke(h.changed) // who publishes looks whether it has
	if !now.Before(end) {
		return now, outcome(hold.Expired)
	}
	if a.mayContinue(j) {
		return now, &hold.Outcome{Result: hold.Resumed, By: "the file " + continueFile, Why: "resumed by the file " + continueFile}
	}
	if due && len(guests) > 0 {
		a.log().Info("the hold ends soon", "in", n.Left.Round(time.Second), "at", n.End, "idle", n.Idle, "guests", names(guests))
		a.server.notify(func(g *guest) notice { return g.warning(n) })
	}
	if soon := now.Add(lookAround); soon.Before(next) {
		next = soon
	}
	return next, nil
}

// busy tells whether programs of guests compute. It looks no more often than every lookAround.
func (a *Agent) busy(j *job, now time.Time) bool {
	if now.Sub(j.looked) < lookAround {
		return false
	}
	j.looked = now
	return a.server.busy(j.spent)
}

// observe tells the clock who is there and what they did. A guest may have come and gone since it was told last.
func (j *job) observe(present bool, last time.Time) {
	came := last.After(j.clock.Start())
	switch {
	case present && !j.present:
		j.clock.Attach(latest(last, j.clock.Start()))
	case present:
		j.clock.Activity(last)
	case j.present || came:
		j.clock.Attach(last)
		j.clock.Leave(last)
	}
	j.present = present
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// mayContinue tells whether the file that lets the job go was made, or touched, since the hold began.
func (a *Agent) mayContinue(j *job) bool {
	info, err := os.Stat(a.continuePath())
	return err == nil && info.Mode().IsRegular() && // a guest who may only forward can make a socket of any name
		(j.before == nil || info.ModTime().After(j.before.ModTime()))
}

func names(guests []hold.Guest) string {
	var names []string
	for _, g := range guests {
		if !slices.Contains(names, g.Identity) {
			names = append(names, g.Identity)
		}
	}
	return strings.Join(names, ", ")
}

// endHold ends a hold with an outcome, or with that of somebody who was told a moment ago that the hold is released.
func (a *Agent) endHold(j *job, o hold.Outcome) hold.Outcome {
	h := a.holding()
	h.mu.Lock()
	select {
	case o = <-j.released:
	default:
	}
	h.job, h.outcome = nil, &o
	poke(h.changed)
	h.mu.Unlock()
	a.log().Info("the hold has ended", "result", string(o.Result), "reason", o.Why)
	return o
}

// release ends the hold.
func (a *Agent) release(o hold.Outcome) error {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.job == nil {
		return ErrNotHeld
	}
	select {
	case h.job.released <- o:
	default: // somebody was faster
	}
	return nil
}

// SetCommand tells what the job runs, for guests to read and to run again. It may be called at any time.
func (a *Agent) SetCommand(c hold.Command) {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.command = &c
	poke(h.changed)
}

// End tells guests in words why the agent is about to end: "the job was cancelled". It changes nothing else, and is to be called
// before the context of Run is cancelled. Without it they read how the last hold ended, or that the job has.
func (a *Agent) End(why string) {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.why = why
}

// lastWords are what guests read when the agent ends. They are never empty.
func (a *Agent) lastWords() string {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.why != "":
		return h.why
	case h.over != "":
		return h.over
	}
	return "the job has ended"
}

// asUser is the Agent as somebody's Controller.
type asUser struct {
	*Agent
	by string
}

// Status implements Controller.
func (a *Agent) Status(context.Context) (hold.Status, error) { return a.status(), nil }

// Extend implements Controller.
func (a *Agent) Extend(ctx context.Context, d time.Duration) (hold.Status, error) {
	return asUser{Agent: a}.Extend(ctx, d)
}

// Resume implements Controller.
func (a *Agent) Resume(ctx context.Context, status *int) (hold.Status, error) {
	return asUser{Agent: a}.Resume(ctx, status)
}

// Fail implements Controller.
func (a *Agent) Fail(ctx context.Context) (hold.Status, error) { return asUser{Agent: a}.Fail(ctx) }

// Reran implements Controller.
func (a *Agent) Reran(_ context.Context, status int) error {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rerun = &status
	poke(h.changed)
	return nil
}

func (u asUser) Extend(_ context.Context, d time.Duration) (hold.Status, error) {
	h := u.holding()
	h.mu.Lock()
	if h.job == nil {
		h.mu.Unlock()
		return u.status(), fmt.Errorf("extend: %w", ErrNotHeld)
	}
	end := h.job.clock.Extend(time.Now(), d)
	poke(h.job.wake)
	h.mu.Unlock()
	u.log().Info("the hold was extended", "by", u.by, "until", end)
	return u.status(), nil
}

func (u asUser) Resume(_ context.Context, status *int) (hold.Status, error) {
	o := hold.Outcome{Result: hold.Resumed, By: u.by, Status: status, Why: "resumed" + u.who()}
	return u.released("resume", o)
}

func (u asUser) Fail(context.Context) (hold.Status, error) {
	return u.released("fail", hold.Outcome{Result: hold.Failed, By: u.by, Why: "ended as failed" + u.who()})
}

func (u asUser) released(verb string, o hold.Outcome) (hold.Status, error) {
	if err := u.release(o); err != nil {
		return u.status(), fmt.Errorf("%s: %w", verb, err)
	}
	return u.status(), nil
}

func (u asUser) who() string {
	if u.by == "" {
		return ""
	}
	return " by " + u.by
}

var _, _, _ Controller = (*Agent)(nil), asUser{}, (*Control)(nil)
