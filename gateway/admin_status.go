package gateway

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// TaskStatus is a task that is registered.
type TaskStatus struct {
	Task         string     `json:"task"`
	Connected    bool       `json:"connected"` // false: its agent has lost its tunnel, and may dial again
	Remote       string     `json:"remote"`    // where the agent came from
	Since        time.Time  `json:"since"`     // of the tunnel that is used
	Issued       time.Time  `json:"issued"`    // when its token was
	Until        *time.Time `json:"until,omitempty"`
	Agent        string     `json:"agent"`    // fingerprint of the agent's key
	HostKey      string     `json:"host_key"` // fingerprint of its SSH host key
	EndToEndOnly bool       `json:"end_to_end_only"`
	Tunnels      int        `json:"tunnels"` // draining ones included
	Guests       int        `json:"guests"`  // connections for this task, jumps included

	// State is what the agent says in one word: registered, attached, idle,
	// expiring. HeldUntil is when the job goes on that it holds for guests.
	State     string     `json:"state,omitempty"`
	HeldUntil *time.Time `json:"held_until,omitempty"`
}

// tasks returns what is registered, by name.
func (s *Server) tasks() []TaskStatus {
	guests := s.guestsByTask()
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []TaskStatus{}
	for name, h := range s.hosts {
		if h.registration.task == "" {
			continue // a newer one overtook it
		}
		t := TaskStatus{
			Task: name, Connected: h.current != nil, Remote: h.remote, Since: h.since.UTC(), Issued: h.generation.UTC(),
			Agent: agentFingerprint(h.agentKey), HostKey: ssh.FingerprintSHA256(h.hostKey), EndToEndOnly: h.endToEndOnly,
			Tunnels: len(h.tunnels), Guests: guests[name], State: h.state.name,
		}
		if until := h.state.until.UTC(); !until.IsZero() {
			t.HeldUntil = &until
		}
		if until := h.deadline.UTC(); !h.deadline.IsZero() {
			t.Until = &until
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(x, y TaskStatus) int { return cmp.Compare(x.Task, y.Task) })
	return all
}

// guestsByTask counts the connections for each task.
func (s *Server) guestsByTask() map[string]int {
	count := make(map[string]int)
	for _, g := range s.guestStatus() {
		tasks := map[string]bool{g.Task: true}
		for _, d := range g.Doing {
			if d.Kind == jumpKind {
				tasks[d.Target] = true
			}
		}
		for task := range tasks {
			count[task]++
		}
	}
	return count
}

// GuestStatus is a guest's connection that is signed in.
type GuestStatus struct {
	Conn      string        `json:"conn"`
	Task      string        `json:"task,omitempty"` // none: it only jumps
	User      string        `json:"user"`           // name that its ssh gave
	Identity  string        `json:"identity"`
	Key       string        `json:"key,omitempty"`
	Method    string        `json:"method"`
	Remote    string        `json:"remote"`
	Client    string        `json:"client"`
	Since     time.Time     `json:"since"`
	FromGuest int64         `json:"from_guest"` // bytes, jumps left out
	FromHost  int64         `json:"from_host"`
	Doing     []DoingStatus `json:"doing"`
}

// DoingStatus is one thing that a guest does.
type DoingStatus struct {
	// Kind is shell, exec, the name of a subsystem, jump, the type of a channel
	// that is forwarded, or session before a program was asked for.
	Kind      string    `json:"kind"`
	Target    string    `json:"target,omitempty"`   // of a jump the task; of what is forwarded see audit.ForwardOpened
	Identity  string    `json:"identity,omitempty"` // of a jump: as who
	Since     time.Time `json:"since"`
	FromGuest int64     `json:"from_guest"`
	FromHost  int64     `json:"from_host"`
}

// guestStatus returns who is in, the longest first.
func (s *Server) guestStatus() []GuestStatus {
	s.mu.Lock()
	guests := make([]*guest, 0, len(s.guests))
	for g := range s.guests {
		guests = append(guests, g)
	}
	s.mu.Unlock()
	all := []GuestStatus{}
	for _, g := range guests {
		all = append(all, g.status())
	}
	slices.SortFunc(all, func(x, y GuestStatus) int { return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Conn, y.Conn)) })
	return all
}

func (g *guest) status() GuestStatus {
	a := g.activity
	status := GuestStatus{
		Conn: g.id, Task: a.who.Task, User: clip(g.user), Identity: a.who.Identity, Key: a.who.Key, Method: g.identity.Method,
		Remote: a.who.Remote, Client: clip(string(g.conn.ClientVersion())), Since: a.since.UTC(),
		FromGuest: a.fromGuest.Load(), FromHost: a.fromHost.Load(), Doing: []DoingStatus{},
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for d := range a.open {
		status.Doing = append(status.Doing, d.status())
	}
	slices.SortFunc(status.Doing, func(x, y DoingStatus) int { return x.Since.Compare(y.Since) })
	return status
}

func (d *doing) status() DoingStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	kind := clip(d.typ)
	switch {
	case d.kind == "subsystem":
		kind = d.subsystem
	case d.kind != "":
		kind = d.kind
	}
	return DoingStatus{Kind: kind, Target: d.target, Identity: d.identity, Since: d.since.UTC(),
		FromGuest: d.fromGuest.Load(), FromHost: d.fromHost.Load()}
}

// in leaves those who are in a task, be it by a jump. Without one it leaves all.
func in(guests []GuestStatus, task string) []GuestStatus {
	return slices.DeleteFunc(guests, func(g GuestStatus) bool {
		jumps := slices.ContainsFunc(g.Doing, func(d DoingStatus) bool { return d.Kind == jumpKind && d.Target == task })
		return task != "" && g.Task != task && !jumps
	})
}
