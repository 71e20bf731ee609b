package tunnel

// Gateway is the parsed address of a gateway.
type Gateway struct {
	Host      string // name or IP address, without brackets
	Port      string // 443 unless given
	WebSocket bool   // only over a WebSocket
}

// ParseGateway parses "host", "host:port", "https://host[:port]" and "wss://host[:port]".
func ParseGateway(s string) (Gateway, error) { panic("todo") }

// String returns the address in a form that ParseGateway takes.
func (g Gateway) String() string { panic("todo") }

// ParseAddress parses host:port strictly, so that both parts can stand in an ssh command line.
func ParseAddress(s string) (host, port string, err error) { panic("todo") }
