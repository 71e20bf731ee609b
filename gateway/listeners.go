package gateway

import (
	"encoding/binary"
	"net"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway/audit"
	"github.com/stagedoor/stagedoor/gateway/splice"
)

// A listener is what a guest has its host listen on (ssh -R).
type listener struct {
	typ    string // of the request that began it
	target string
}

// endsListening says which request a cancelling one is about.
var endsListening = map[string]string{
	"cancel-tcpip-forward":                   "tcpip-forward",
	"cancel-streamlocal-forward@openssh.com": "streamlocal-forward@openssh.com",
}

// maxListening bounds how many listeners of a connection are remembered. The end of
// further ones is not recorded.
const maxListening = 1000

// answered notes what the host listens on from now on, or no longer.
func (a *activity) answered(from splice.Side, r *ssh.Request, granted bool, reply []byte) {
	if from != splice.Guest || !granted {
		return
	}
	began := endsListening[r.Type]
	l := listener{r.Type, ""}
	if began != "" {
		l.typ = began
	}
	l.target = clip(listenTarget(l.typ, r.Payload, reply))
	if l.target == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if began != "" {
		a.unlisten(l)
		return
	}
	if len(a.listening) < maxListening {
		a.listening[l] = time.Now()
	}
	a.audit.Record(audit.ListenOpened{Who: a.who, Type: l.typ, Target: l.target})
}

// unlisten records the end of a listener. a.mu is held.
func (a *activity) unlisten(l listener) {
	since, ok := a.listening[l]
	if !ok {
		return
	}
	delete(a.listening, l)
	a.audit.Record(audit.ListenClosed{Who: a.who, Type: l.typ, Target: l.target, Seconds: seconds(since)})
}

// listenTarget is what a request is about, "" if that is no listener (RFC 4254
// section 7.1; OpenSSH's PROTOCOL section 2.4). The reply has the port when it was
// left to the host.
func listenTarget(typ string, payload, reply []byte) string {
	switch typ {
	case "tcpip-forward":
		var on struct {
			Host string
			Port uint32
		}
		if ssh.Unmarshal(payload, &on) != nil {
			return ""
		}
		if on.Port == 0 && len(reply) >= 4 {
			on.Port = binary.BigEndian.Uint32(reply)
		}
		return net.JoinHostPort(on.Host, strconv.FormatUint(uint64(on.Port), 10))
	case "streamlocal-forward@openssh.com":
		return text(payload)
	}
	return ""
}
