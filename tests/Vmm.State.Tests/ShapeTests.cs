using System.Runtime.CompilerServices;
using System.Text.Json;
using Vmm.Devices;
using Vmm.Kvm;
using Vmm.Machine.Saved;
using Vmm.State;

namespace Vmm.State.Tests;

public sealed class ShapeTests
{
    private static IReadOnlyList<StateShape> Shapes { get; } = [.. DeviceStates.All, .. KvmStates.All, .. MachineStates.All];

    private static string Root([CallerFilePath] string here = "") =>
        Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "..", ".."));

    [Fact]
    public void The_schema_in_the_documentation_is_what_the_records_are()
    {
        string path = Path.Combine(Root(), "docs", "saved-state.schema.txt");
        string now = StateSchema.Write(Shapes);
        if (Environment.GetEnvironmentVariable("VMM_WRITE_GOLDEN") == "1")
        {
            File.WriteAllText(path, now);
        }

        // A shape that is in a release never changes: a field more or less is a new version of its own, and the old one stays here and
        // readable.
        Assert.Equal(File.ReadAllText(path), now);
    }

    [Fact]
    public void No_two_shapes_have_one_kind_and_version() =>
        Assert.Equal(Shapes.Count, Shapes.Select(s => (s.Kind, s.Version)).Distinct().Count());

    [Fact]
    public void Every_version_of_every_record_has_a_golden_file_that_is_read_and_written_the_same()
    {
        foreach (StateShape shape in Shapes)
        {
            string path = Path.Combine(Root(), "tests", "Vmm.State.Tests", "Golden", $"{shape.Kind}.v{shape.Version}.json");
            if (Environment.GetEnvironmentVariable("VMM_WRITE_GOLDEN") == "1" && !File.Exists(path))
            {
                File.WriteAllText(path, Samples.Json(shape.Fields) + "\n");
            }

            string golden = File.ReadAllText(path).TrimEnd();
            object value = JsonSerializer.Deserialize(golden, shape.Fields)!;
            Assert.Equal(golden, JsonSerializer.Serialize(value, shape.Fields));
        }
    }

    [Fact]
    public void The_golden_document_of_version_1_is_read()
    {
        string path = Path.Combine(Root(), "tests", "Vmm.State.Tests", "Golden", "vm.v1.json");
        StateWriter uart = new(new PartId("serial"));
        uart.Write(DeviceStates.Uart, new()
        {
            InterruptEnable = 5,
            LineControl = 3,
            ModemControl = 11,
            Scratch = 0x5A,
            FifoControl = 0xC1,
            ModemDelta = 1,
            Divisor = 12,
            Overrun = true,
            TransmitPending = false,
            ReceiveFifo = [1, 2, 3],
        });
        StateDocument document = new("0.1.0", Documents.About, [uart.ToBlob()]);
        if (Environment.GetEnvironmentVariable("VMM_WRITE_GOLDEN") == "1" && !File.Exists(path))
        {
            File.WriteAllBytes(path, StateDocumentWriter.Write(document));
        }

        Documents.RequireEqual(document, StateDocumentReader.Read(File.ReadAllBytes(path)));
    }

    [Fact]
    public void Records_with_a_field_missing_unknown_doubled_or_null_are_refused()
    {
        foreach (StateShape shape in Shapes)
        {
            string good = Samples.Json(shape.Fields);
            JsonSerializer.Deserialize(good, shape.Fields);
            string unknown = "{\"stranger\":1," + good[1..], doubled = good[..^1] + "," + good[1..];
            string nulls = Samples.Json(shape.Fields, nulls: true);
            foreach (string bad in new[] { unknown, "{}", doubled, nulls })
            {
                Assert.ThrowsAny<JsonException>(() => JsonSerializer.Deserialize(bad, shape.Fields));
            }
        }
    }

    [Fact]
    public void A_reader_names_unit_record_and_version()
    {
        UnitBlob blob = new(new PartId("serial"), [new StateRecord(DeviceStates.Uart.Kind, 2, "{}"u8.ToArray())]);
        Assert.Equal("serial: the record 'uart-16550' has version 2; this release reads version 1.",
            Assert.Throws<StateException>(() => new StateReader(blob).Read(DeviceStates.Uart)).Message);
        blob = new(new PartId("serial"), []);
        Assert.Equal("serial: the record 'uart-16550' is missing.",
            Assert.Throws<StateException>(() => new StateReader(blob).Read(DeviceStates.Uart)).Message);
        blob = new(new PartId("serial"), [new StateRecord(DeviceStates.Uart.Kind, 1, "[1]"u8.ToArray())]);
        Assert.StartsWith("serial: the record 'uart-16550' is not of its shape (",
            Assert.Throws<StateException>(() => new StateReader(blob).Read(DeviceStates.Uart)).Message, StringComparison.Ordinal);
    }
}
