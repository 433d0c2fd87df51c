// Command collector runs the OpenTelemetry Collector's receiver of Splunk's HTTP Event Collector:
//
//	collector OUT CONFIG
//
// CONFIG is the receiver's own, in JSON, with the extensions "ack" (the Collector's) and "token"
// (ours: the header must be "Splunk $TOKEN"). A request is answered when its records are in the
// file OUT, as lines of JSON. The Collector's file exporter and its bearertokenauth extension
// are not used: the checksum database does not know them in this version.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"os/signal"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/ackextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/splunkhecreceiver"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
)

// host is what components find around them.
type host map[component.ID]component.Component

func (h host) GetExtensions() map[component.ID]component.Component { return h }

// token is an extension that asks for Splunk's header.
type token struct {
	component.StartFunc
	component.ShutdownFunc
}

func (token) Authenticate(ctx context.Context, headers map[string][]string) (context.Context, error) {
	given := headers["Authorization"]
	if len(given) != 1 || given[0] != "Splunk "+os.Getenv("TOKEN") {
		return ctx, errors.New("authentication failed")
	}
	return ctx, nil
}

func appendTo(path string) consumer.ConsumeLogsFunc {
	out, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	check(err)
	return func(_ context.Context, logs plog.Logs) error {
		var lines []byte
		for _, resource := range logs.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					line, err := json.Marshal(map[string]any{
						"resource":   resource.Resource().Attributes().AsRaw(),
						"attributes": record.Attributes().AsRaw(),
						"body":       record.Body().AsRaw(),
						"time":       record.Timestamp().AsTime().UnixMilli(),
					})
					if err != nil {
						return err
					}
					lines = append(append(lines, line...), '\n')
				}
			}
		}
		_, err := out.Write(lines)
		return err
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	telemetry := componenttest.NewNopTelemetrySettings()

	acks := ackextension.NewFactory()
	ack, err := acks.Create(ctx, extension.Settings{
		ID: component.NewID(acks.Type()), TelemetrySettings: telemetry,
	}, acks.CreateDefaultConfig())
	check(err)
	around := host{
		component.MustNewID("ack"):   ack,
		component.MustNewID("token"): token{},
	}
	check(ack.Start(ctx, around))

	var given map[string]any
	check(json.Unmarshal([]byte(os.Args[2]), &given))
	factory := splunkhecreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	check(confmap.NewFromStringMap(given).Unmarshal(config))
	sink, err := consumer.NewLogs(appendTo(os.Args[1]))
	check(err)
	hec, err := factory.CreateLogs(ctx, receiver.Settings{
		ID: component.NewID(factory.Type()), TelemetrySettings: telemetry,
	}, config, sink)
	check(err)
	check(hec.Start(ctx, around))
	<-ctx.Done()
	check(hec.Shutdown(context.Background()))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
