package agent

import "golang.org/x/crypto/ssh"

// exit is how a program ended.
type exit struct {
	status int    // 0 to 255; -1 when a signal ended it
	signal string // as RFC 4254 §6.10 names it, without SIG
	core   bool   // it dumped core
}

// shellStatus is the status by which a shell knows such an end.
func (e exit) shellStatus() int {
	if e.signal == "" {
		return e.status
	}
	return 128 + signalNumber(e.signal)
}

// send tells the guest. It is the last thing before EOF and CLOSE.
func (e exit) send(ch ssh.Channel) error {
	if e.signal == "" {
		_, err := ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(e.status)}))
		return err
	}
	_, err := ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
		Signal  string
		Core    bool
		Message string
		Lang    string
	}{Signal: e.signal, Core: e.core}))
	return err
}
