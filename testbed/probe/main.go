// What runs in the testbed's pods when a check needs something to talk to: `serve ADDRESS` answers
// every request with its host's name; `get URL` prints the answer and fails on any but 200. Only
// the standard library, so that its image is one static file.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("the arguments must be `serve ADDRESS` or `get URL`"))
	}
	switch os.Args[1] {
	case "serve":
		fail(serve(os.Args[2]))
	case "get":
		fail(get(os.Args[2]))
	default:
		fail(fmt.Errorf("%q is neither `serve` nor `get`", os.Args[1]))
	}
}

func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr:              address,
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(answer, name)
		}),
	}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ended.Done()
		_ = server.Close()
	}()
	fmt.Printf("%s serves on %s\n", name, address)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func get(url string) error {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, answer.Status)
	}
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
