package tunnel

import (
	"net"
	"net/http"
)

// UpgradeWebSocket makes a tunnel's connection of a WebSocket request.
func UpgradeWebSocket(w http.ResponseWriter, r *http.Request) (c net.Conn, binding []byte, err error) {
	panic("todo")
}
