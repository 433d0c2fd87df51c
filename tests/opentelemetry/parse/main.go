// Command opentelemetry reads messages, one a line, and prints what the OpenTelemetry Collector's
// transform processor makes of each: ParseCEF and ParseLEEF, which it exports by no other way.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/transformprocessor"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/processor/processortest"
)

var statements = map[string]any{
	"error_mode": "propagate",
	"log_statements": []any{
		`set(log.attributes["cef"], ParseCEF(log.body)) where IsMatch(log.body, "^CEF:")`,
		`set(log.attributes["leef"], ParseLEEF(log.body)) where IsMatch(log.body, "^LEEF:")`,
	},
}

func main() {
	factory := transformprocessor.NewFactory()
	config := factory.CreateDefaultConfig()
	if err := confmap.NewFromStringMap(statements).Unmarshal(config); err != nil {
		log.Fatal(err)
	}
	sink := new(consumertest.LogsSink)
	settings := processortest.NewNopSettings(factory.Type())
	transform, err := factory.CreateLogs(context.Background(), settings, config, sink)
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		logs := plog.NewLogs()
		record := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
		record.Body().SetStr(lines.Text())
		if err := transform.ConsumeLogs(context.Background(), logs); err != nil {
			record.Attributes().PutStr("error", err.Error())
		}
		said, err := json.Marshal(record.Attributes().AsRaw())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(said))
	}
}
