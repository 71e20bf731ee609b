package gateway

import (
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/auth"
)

func TestTaskNamed(t *testing.T) {
	for _, test := range []struct {
		address, name string
		want          auth.TaskID // empty: none
	}{
		{"gw.example.com:22", "task-1", "task-1"},
		{"gw.example.com:22", "Task-1", "task-1"},
		{"gw.example.com:22", "task-1.gw.example.com", "task-1"},
		{"GW.Example.com:22", "TASK-1.gw.example.COM", "task-1"},
		{"gw.example.com:22", "a.b.gw.example.com", "a.b"},
		{"gw.example.com:22", "gw.example.com", "gw.example.com"},
		{"gw.example.com:22", "task-1xgw.example.com", "task-1xgw.example.com"},
		{"gw.example.com:22", strings.Repeat("x", 63) + ".gw.example.com", auth.TaskID(strings.Repeat("x", 63))},
		{"gw.example.com:22", strings.Repeat("x", 64), ""},
		{"gw.example.com:22", ".gw.example.com", ""},
		{"gw.example.com:22", "Alice Smith", ""},
		{"gw.example.com:22", "root@corp", ""},
		{"gw.example.com:22", "", ""},
		{"gw.example.com:22", "gw.example.com.", "gw.example.com."},
		{"192.0.2.1:22", "task-1.192.0.2.1", "task-1.192.0.2.1"},
		{"[2001:db8::1]:22", "task-1", "task-1"},
	} {
		s := &Settings{Address: test.address}
		got, ok := s.taskNamed(test.name)
		if got != test.want || ok != (test.want != "") {
			t.Errorf("at %s, %q is task %q, %v; want %q", test.address, test.name, got, ok, test.want)
		}
	}
}

func TestCommandsForGuests(t *testing.T) {
	for address, want := range map[string][2]string{
		"gw.example.com:22":   {"gw.example.com", "ssh T@gw.example.com"},
		"gw.example.com:2222": {"gw.example.com:2222", "ssh -p 2222 T@gw.example.com"},
		"[2001:db8::1]:22":    {"[2001:db8::1]", "ssh T@2001:db8::1"},
		"[2001:db8::1]:2222":  {"[2001:db8::1]:2222", "ssh -p 2222 T@2001:db8::1"},
	} {
		s := &Settings{Address: address}
		if got := [2]string{s.jumpHost(), s.sshTo("T")}; got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}
