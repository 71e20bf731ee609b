package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway/audit"
)

// Paths of the admin API. What is asked and answered is JSON; an answer other than
// 200 is an [AdminError].
const (
	AdminTasksPath   = "/v1/tasks"   // GET: []TaskStatus
	AdminGuestsPath  = "/v1/guests"  // GET, perhaps with ?task=: []GuestStatus
	AdminBlocksPath  = "/v1/blocks"  // GET: []Block
	AdminKickPath    = "/v1/kick"    // POST AdminRequest: AdminResult
	AdminBlockPath   = "/v1/block"   // POST AdminRequest: AdminResult
	AdminUnblockPath = "/v1/unblock" // POST AdminRequest: AdminResult
)

// An AdminRequest says whom something is to happen to. One of the first four
// fields is set.
type AdminRequest struct {
	Task     string        `json:"task,omitempty"`
	Identity string        `json:"identity,omitempty"` // name of guests; case does not matter
	Key      string        `json:"key,omitempty"`      // fingerprint of guests' key, SHA256:…
	Conn     string        `json:"conn,omitempty"`     // ID of a guest's connection; cannot be blocked
	Reason   string        `json:"reason,omitempty"`   // is told to whom it happens
	By       string        `json:"by,omitempty"`       // user who asks, for the audit stream
	For      time.Duration `json:"for_ns,omitempty"`   // of a block: how long; zero: until it is taken back

	peer string // see WithAdminPeer
}

type adminPeerKey struct{}

// WithAdminPeer returns the context of a request to AdminHandler that came from
// peer: a user and process, in words, that the system vouches for. It goes into the
// log and the audit stream.
func WithAdminPeer(ctx context.Context, peer string) context.Context {
	return context.WithValue(ctx, adminPeerKey{}, peer)
}

// An AdminResult says what happened.
type AdminResult struct {
	Guests int `json:"guests"` // connections that were ended
	Hosts  int `json:"hosts"`  // tunnels that were ended
}

// An AdminError says why nothing happened.
type AdminError struct {
	Message string `json:"error"`
}

// Error returns the message.
func (e *AdminError) Error() string { return e.Message }

// AdminHandler answers an operator's commands. Whoever reaches it can end every
// connection and refuse everybody: it is for a socket that nobody else can open.
func (s *Server) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+AdminTasksPath, func(w http.ResponseWriter, _ *http.Request) { answer(w, s.tasks(), nil) })
	mux.HandleFunc("GET "+AdminGuestsPath, func(w http.ResponseWriter, r *http.Request) {
		answer(w, in(s.guestStatus(), r.FormValue("task")), nil)
	})
	mux.HandleFunc("GET "+AdminBlocksPath, func(w http.ResponseWriter, _ *http.Request) { answer(w, s.blocks.all(), nil) })
	for path, act := range map[string]func(AdminRequest) (AdminResult, error){
		AdminKickPath: s.adminKick, AdminBlockPath: s.adminBlock, AdminUnblockPath: s.adminUnblock,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var ask AdminRequest
			if err := decode(w, r, &ask); err != nil {
				answer(w, nil, err)
				return
			}
			if err := ask.check(); err != nil {
				answer(w, nil, err)
				return
			}
			ask.peer, _ = r.Context().Value(adminPeerKey{}).(string)
			result, err := act(ask)
			answer(w, result, err)
		})
	}
	mux.HandleFunc("POST "+AdminExplainPath, func(w http.ResponseWriter, r *http.Request) {
		var ask ExplainRequest
		if err := decode(w, r, &ask); err != nil {
			answer(w, nil, err)
			return
		}
		explanation, err := s.adminExplain(r.Context(), ask)
		answer(w, explanation, err)
	})
	return s.counting("admin request", mux)
}

// counting has a panic of a handler be counted and logged as any other, and end the
// request alone.
func (s *Server) counting(what string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				s.panicked(what, v, debug.Stack())
				panic(http.ErrAbortHandler) // what net/http does not log
			}
		}()
		h.ServeHTTP(w, r)
	})
}

func decode(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	d.DisallowUnknownFields() // they may be about whom
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the question cannot be read: %w", err)
	}
	return nil
}

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		v = &AdminError{Message: err.Error()}
	}
	json.NewEncoder(w).Encode(v)
}

// check brings names into the form in which they are compared.
func (r *AdminRequest) check() error {
	n := 0
	for _, field := range []string{r.Task, r.Identity, r.Key, r.Conn} {
		if field != "" {
			n++
		}
	}
	if n != 1 {
		return errors.New("say whom, by one of task, identity, key and conn")
	}
	if r.Task != "" {
		task, err := auth.ParseTaskID(r.Task)
		if err != nil {
			return err
		}
		r.Task = string(task)
	}
	if r.Key != "" && (!strings.HasPrefix(r.Key, "SHA256:") || len(r.Key) != len("SHA256:")+43) {
		return fmt.Errorf("%.100q is no fingerprint: give it as ssh-keygen -l prints it, SHA256:…", r.Key)
	}
	if r.For < 0 {
		return errors.New("a block cannot last for less than no time")
	}
	for _, field := range []string{r.Identity, r.Conn, r.Reason, r.By} {
		if len(field) > 500 {
			return errors.New("a name or reason is longer than 500 bytes")
		}
	}
	r.Identity = strings.ToLower(strings.TrimSpace(r.Identity))
	return nil
}

func (r *AdminRequest) operator() audit.Operator { return audit.Operator{By: r.By, Peer: r.peer} }

func (r *AdminRequest) selection() audit.Selection {
	return audit.Selection{Task: r.Task, Conn: r.Conn, Identity: r.Identity, Key: r.Key}
}

// adminKick ends a task's registration, or connections of guests.
func (s *Server) adminKick(r AdminRequest) (done AdminResult, err error) {
	if r.Task != "" {
		if err := s.endRegistration(auth.TaskID(r.Task), r.Reason); err != nil {
			return done, err
		}
	}
	done = s.throwOut(r, endedByKick, "an operator ended your connection")
	if done == (AdminResult{}) {
		return done, errors.New("there is nobody of this description")
	}
	s.log.Warn("an operator ended connections", "of", r.selection(), "by", r.By, "peer", r.peer, "reason", r.Reason, "guests", done.Guests, "hosts", done.Hosts)
	s.audit.Record(audit.AdminKicked{Selection: r.selection(), Operator: r.operator(), Reason: r.Reason, Guests: done.Guests, Hosts: done.Hosts})
	return done, nil
}

// endRegistration has the agent of a task stay out when it dials again. One with a
// newer token may come.
func (s *Server) endRegistration(task auth.TaskID, reason string) error {
	s.mu.Lock()
	h := s.hosts[string(task)]
	if h == nil {
		s.mu.Unlock()
		return fmt.Errorf("task %s is not registered", task)
	}
	issued := h.generation
	s.mu.Unlock()
	return s.blocks.end(task, issued, reason)
}

// adminBlock refuses somebody, or a task, from now on.
func (s *Server) adminBlock(r AdminRequest) (done AdminResult, err error) {
	if r.Conn != "" {
		return done, errors.New("a connection cannot be blocked: block its key, and it stays out")
	}
	block := Block{Key: r.Key, Identity: r.Identity, Task: r.Task, Reason: r.Reason, By: r.By, At: time.Now().UTC()}
	if r.For > 0 {
		until := block.At.Add(r.For)
		block.Until = &until
	}
	if err := s.blocks.add(block); err != nil {
		return done, err
	}
	done = s.throwOut(r, endedByBlock, "an operator has blocked you")
	s.log.Warn("an operator blocks", "whom", r.selection(), "by", r.By, "peer", r.peer, "reason", r.Reason, "for", r.For, "guests", done.Guests, "hosts", done.Hosts)
	s.audit.Record(audit.AdminBlocked{Selection: r.selection(), Operator: r.operator(), Reason: r.Reason, Until: block.Until, Guests: done.Guests, Hosts: done.Hosts})
	return done, nil
}

// adminUnblock takes a block back.
func (s *Server) adminUnblock(r AdminRequest) (done AdminResult, err error) {
	had, err := s.blocks.remove(subject{r.Key, lastingName(r.Identity), r.Task})
	if err == nil && !had {
		err = errors.New("there is no such block")
	}
	if err != nil {
		return done, err
	}
	s.log.Warn("an operator no longer blocks", "whom", r.selection(), "by", r.By, "peer", r.peer)
	s.audit.Record(audit.AdminUnblocked{Selection: r.selection(), Operator: r.operator()})
	return done, nil
}

// throwOut ends the connections that a request is about. Guests are told why.
func (s *Server) throwOut(r AdminRequest, by ender, words string) AdminResult {
	words += because(r.Reason)
	if r.Task != "" {
		words = strings.Replace(words, "you", "task "+r.Task+", and with it you", 1)
	}
	return AdminResult{Guests: s.kickGuests(r.matches, by, words), Hosts: s.closeTunnels(r.Task)}
}

// matches reports whether a request is about a guest.
func (r *AdminRequest) matches(g *guest) bool {
	switch {
	case r.Task != "":
		return string(g.task) == r.Task
	case r.Conn != "":
		return g.id == r.Conn
	case r.Key != "":
		return slices.Contains(keyPrints(g.identity.Key), r.Key)
	}
	return means(r.Identity, g.identity.Name) || g.activity.jumpsAs(r.Identity)
}

// closeTunnels ends the tunnels of a task.
func (s *Server) closeTunnels(task string) int {
	var ends []func() error
	s.mu.Lock()
	if h := s.hosts[task]; h != nil {
		for t := range h.tunnels {
			ends = append(ends, t.Close)
		}
	}
	s.mu.Unlock()
	for _, end := range ends {
		end()
	}
	return len(ends)
}
