package gateway

import (
	"errors"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway/audit"
	"github.com/stagedoor/stagedoor/tunnel"
)

// who says in the audit stream which agent's connection this is.
func (a *admission) who() audit.Who {
	task := string(a.reg.task)
	if task == "" {
		task = clip(a.asked)
	}
	return audit.Who{Task: task, Remote: a.conn.remote.String(), Conn: a.conn.id}
}

// recordRegistered tells the audit stream of an agent that was admitted.
func (a *admission) recordRegistered(h tunnel.Hello) {
	e := audit.HostRegistered{Who: a.who(), Agent: agentFingerprint(a.reg.agentKey), HostKey: ssh.FingerprintSHA256(a.reg.hostKey),
		Renewed: h.Renewal != "", Issued: a.reg.generation.UTC()}
	if until := a.reg.deadline.UTC(); !a.reg.deadline.IsZero() {
		e.Until = &until
	}
	a.s.audit.Record(e)
}

// recordRefused tells it of one that was not.
func (a *admission) recordRefused(err error) {
	result := "failed"
	if refusal, ok := errors.AsType[*tunnel.Refusal](err); ok {
		result = refusal.Code
	}
	reason := "it went before it was registered"
	if err != nil {
		reason = err.Error()
	}
	a.s.audit.Record(audit.HostRefused{Who: a.who(), Result: result, Reason: clip(reason)})
}

// recordEnded tells it that the tunnel is gone.
func (a *admission) recordEnded() {
	reason := "the gateway ended it"
	if refusal, ok := errors.AsType[*tunnel.Refusal](a.s.blocks.refusal(a.reg)); ok {
		reason = refusal.Message
	} else if a.cause != nil {
		reason = a.cause.Error()
	}
	a.s.audit.Record(audit.HostEnded{Who: a.who(), Agent: agentFingerprint(a.reg.agentKey), Seconds: seconds(a.reg.since), Reason: clip(reason)})
}
