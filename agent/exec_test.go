package agent

import "testing"

func TestExecOutputAndStatus(t *testing.T) {
	h := newTestHost(t, nil)
	h.ssh("", "echo out; echo err >&2; exit 3").wantAll(t, "out\n", "err\n", 3)
	h.ssh("", "pwd").want(t, h.dir+"\n")
	h.ssh("hello", "cat").want(t, "hello")
	h.ssh("echo $0; tty").wantAll(t, "bash\nnot a tty\n", "", 1)
}
