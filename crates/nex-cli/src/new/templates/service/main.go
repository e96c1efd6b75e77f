// A service that keeps running: a NATS micro service, as any other. nex gives it an environment, takes its output as log lines and sends
// it SIGINT when it must go.
package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

func greeting(name string) string {
	if name == "" {
		name = "world"
	}
	return fmt.Sprintf("Hello, %s!", name)
}

func main() {
	client, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	service, err := micro.AddService(client, micro.Config{Name: "{{name}}", Version: "0.1.0", Description: "Greets"})
	if err != nil {
		log.Fatal(err)
	}
	err = service.AddEndpoint("hello", micro.HandlerFunc(func(request micro.Request) {
		request.Respond([]byte(greeting(strings.TrimSpace(string(request.Data())))))
	}), micro.WithEndpointSubject("{{name}}.hello"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on {{name}}.hello")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	<-end
	service.Stop()
	client.Drain()
}
