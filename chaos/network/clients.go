package network

import (
	"context"
	"fmt"
)

// ClientBase is the address before the first server's in the network of clients; this process has ClientGate.
const (
	ClientBase = "10.78.0.0"
	ClientGate = "10.78.0.254"
	ClientBits = "/24"
)

// ClientInterface is a server's in the network of clients.
const ClientInterface = "clients"

// Clients connects the servers and this process to one more network, of clients alone: in it addresses may move from one server to
// another, and nothing is lost, whatever is between the servers.
func (n *Network) Clients(ctx context.Context, servers int) error {
	const bridge = "clients"
	commands := [][]string{
		{"ip", "link", "add", bridge, "type", "bridge"},
		{"ip", "addr", "add", ClientGate + ClientBits, "dev", bridge},
		{"ip", "link", "set", bridge, "up"},
	}
	for i := 1; i <= servers; i++ {
		name, here := fmt.Sprintf("n%d", i), fmt.Sprintf("clients-n%d", i)
		commands = append(commands,
			[]string{"ip", "link", "add", here, "type", "veth", "peer", "name", ClientInterface, "netns", name},
			[]string{"ip", "link", "set", here, "master", bridge, "up"},
			[]string{"ip", "-n", name, "addr", "add", ClientAddress(i) + ClientBits, "dev", ClientInterface},
			[]string{"ip", "-n", name, "link", "set", ClientInterface, "up"})
	}
	return n.All(ctx, commands)
}

// ClientAddress is that of the i-th server, from 1 on, in the network of clients.
func ClientAddress(i int) string { return fmt.Sprintf("10.78.0.%d", i) }
