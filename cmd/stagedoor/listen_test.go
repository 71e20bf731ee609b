package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestListenIsExplained(t *testing.T) {
	for _, test := range []struct {
		key, address string
		errno        syscall.Errno
		want         []string
	}{
		{"ssh.listen", ":22", syscall.EADDRINUSE, []string{"own sshd probably holds port 22", "--ssh-listen :2222", "move sshd"}},
		{"https.listen", ":443", syscall.EADDRINUSE, []string{"another program holds the port", "sport = :443", "--https-listen"}},
		{"ssh.listen", ":22", syscall.EACCES, []string{"setcap cap_net_bind_service=+ep", "AmbientCapabilities=CAP_NET_BIND_SERVICE", "--ssh-listen"}},
		{"ssh.listen", ":2222", syscall.EACCES, []string{"may not listen there"}},
		{"private.listen", "192.0.2.1:9180", syscall.EADDRNOTAVAIL, []string{"no interface of this machine", "--private-listen :9180"}},
		{"ssh.listen", ":2222", syscall.EMFILE, []string{"too many open files"}},
	} {
		cause := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", test.errno)}
		err := explainListen(test.key, test.address, cause)
		for _, want := range append(test.want, test.key+": listen tcp", test.errno.Error()) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %v: %q is missing in %q", test.address, test.errno, want, err)
			}
		}
		if strings.Contains(fmt.Sprint(err), "\n") {
			t.Errorf("more than a line: %q", err)
		}
	}
}
