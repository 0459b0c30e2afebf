using System.Globalization;
using System.Text;
using System.Text.Json;
using FsCheck.Fluent;
using Vmm.Contracts.Control;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Worker.Tests;

/// <summary>Frames and specs as bytes.</summary>
public sealed class ControlCodecTests
{
    [Fact]
    public void A_frame_that_was_written_is_read_back()
    {
        FsCheck.Check.QuickThrowOnFailure(Prop.ForAll<int, string, int>((id, text, count) =>
        {
            string kind = "k" + new string([.. (text ?? "").Where(char.IsLetterOrDigit).Take(20)]);
            string[] names = [.. Enumerable.Range(0, Math.Abs(count % 10)).Select(i => $"disk{i}")];
            ControlFrame frame =
                new() { Id = Math.Abs((long)id), Kind = kind, Descriptors = names, Body = JsonSerializer.SerializeToElement(text ?? "") };
            ControlFrame? read = ControlCodec.TryDecode(ControlCodec.Encode(frame), names.Length, out string problem);
            return read is not null && problem.Length == 0 && read.Id == frame.Id
                && string.Equals(read.Kind, kind, StringComparison.Ordinal)
                && read.Descriptors!.SequenceEqual(names) && JsonElement.DeepEquals(read.Body!.Value, frame.Body.Value);
        }));
    }

    [Theory]
    [InlineData("""{"id":1,"kind":"start"}""", 1, "0 descriptors named, 1 passed")]
    [InlineData("""{"id":1,"kind":"start","descriptors":["a"]}""", 0, "1 descriptors named, 0 passed")]
    [InlineData("""{"id":1,"kind":"start","descriptors":["a","a"]}""", 2, "two descriptors named")]
    [InlineData("""{"id":1,"kind":"start","descriptors":[null]}""", 1, "bad name")]
    [InlineData("""{"id":-1,"kind":"start"}""", 0, "bad id or kind")]
    [InlineData("""{"id":1,"kind":""}""", 0, "bad id or kind")]
    [InlineData("""{"id":1}""", 0, "kind")]
    [InlineData("null", 0, "null")]
    [InlineData("{", 0, "")]
    public void Unsound_frames_are_refused_with_the_reason(string json, int descriptors, string reason)
    {
        Assert.Null(ControlCodec.TryDecode(Packet(Encoding.UTF8.GetBytes(json)), descriptors, out string problem));
        Assert.NotEmpty(problem);
        Assert.Contains(reason, problem, StringComparison.Ordinal);
    }

    [Fact]
    public void What_a_later_version_adds_to_a_frame_or_to_hello_is_passed_over_and_nothing_else_is()
    {
        string json =
            """
            {"id":1,"kind":"hello","trace":{"a":[1]},"body":{"vmId":null,"state":"Idle","confinement":{"applied":[],
            "missing":[]},"version":7,"speed":1}}
            """;
        ControlFrame frame = ControlCodec.TryDecode(Packet(Encoding.UTF8.GetBytes(json)), 0, out string problem)!;
        Assert.Equal("", problem);
        Assert.True(ControlCodec.TryBody(frame, ControlJson.Default.HelloBody, out HelloBody? hello, out _));
        Assert.Equal((7, null), (hello!.Version, hello.Features));
        Assert.False(ControlCodec.TryBody(frame, ControlJson.Default.CreateBody, out _, out _));
        byte[] plain = ControlCodec.Encode(new ControlFrame { Id = 1, Kind = "x" });
        Assert.DoesNotContain("moreDescriptors", Encoding.UTF8.GetString(plain), StringComparison.Ordinal); // a version 1 would refuse it
    }

    [Fact]
    public void A_frame_that_is_too_long_is_not_written() =>
        Assert.Throws<ArgumentException>(() => ControlCodec.Encode(
            new ControlFrame { Id = 1, Kind = "x", Body = JsonSerializer.SerializeToElement(new string('x', ControlCodec.MaxFrame)) }));

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_and_damaged_packets_are_answers()
    {
        int iterations = int.Parse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS") ?? "20000", CultureInfo.InvariantCulture);
        Random random = new(31);
        byte[] good = ControlCodec.Encode(new ControlFrame
        {
            Id = 7,
            Kind = ControlKinds.Create,
            Descriptors = ["kvm", "kernel"],
            Body = ControlCodec.Body(
                new CreateBody("id", 5, VmSpecJson.Write(new VmSpec { Disks = [new DiskSpec()] })), ControlJson.Default.CreateBody),
        });
        int sound = 0;
        for (int i = 0; i < iterations; i++)
        {
            byte[] bytes;
            if (i % 4 == 0)
            {
                bytes = new byte[random.Next(300)];
                random.NextBytes(bytes);
            }
            else
            {
                bytes = good[..(i % 4 == 1 ? random.Next(good.Length) : good.Length)];
                for (int flips = random.Next(4); flips > 0 && bytes.Length > 0; flips--)
                {
                    bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
                }
            }

            if (ControlCodec.TryDecode(bytes, random.Next(3), out string problem) is not { } frame)
            {
                Assert.NotEmpty(problem);
            }
            else if (ControlCodec.TryBody(frame, ControlJson.Default.CreateBody, out CreateBody? body, out _))
            {
                sound++;
                VmSpecJson.TryRead(body.Spec, out _);
            }
        }

        Assert.True(sound > 0, "no packet got as far as its body");
    }

    [Theory]
    [InlineData("""{"vnodes":[null],"balloon":null}""")]
    [InlineData("""{"vnodes":[[null]],"balloon":null}""")]
    [InlineData("""{"vnodes":null,"balloon":null}""")]
    [InlineData("""{"vnodes":[],"balloon":null,"more":[1,{"a":1e999}]}""")]
    public void Null_in_a_list_and_infinite_numbers_are_refused(string json)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        Assert.False(ControlCodec.TryBody(
            new ControlFrame { Id = 1, Kind = "memory", Body = document.RootElement },
            ControlJson.Default.VmMemory,
            out _,
            out string problem));
        Assert.NotEmpty(problem);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Bodies_of_every_kind_are_whole_or_refused()
    {
        int iterations = int.Parse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS") ?? "20000", CultureInfo.InvariantCulture);
        Random random = new(37);
        ControlJson json = ControlJson.Default;
        (string Json, Func<ControlFrame, string?> Read)[] bodies =
        [
            ("""{"code":"a","message":"b"}""", f => Read(f, json.ControlError)),
            ("""{"state":"running"}""", f => Read(f, json.StateBody)),
            ("""{"vmId":null,"state":"idle","confinement":{"applied":["a"],"missing":["b","c"]}}""", f => Read(f, json.HelloBody)),
            ("""{"version":2,"features":["a"]}""", f => Read(f, json.HelloRequest)),
            ("""{"vmId":"a","userId":5,"spec":{"name":"a","disks":[{"path":"x"}]}}""",
                f => Read(f, json.CreateBody, c => VmSpecJson.TryRead(c.Spec, out _))),
            ("""{"reason":"reset","exitCode":1,"message":"x"}""", f => Read(f, json.WorkerExit)),
            (
                """
                {"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[{"name":"d","readRequests":1,"readBytes":1,
                "writeRequests":1,"writtenBytes":1,"flushes":1,"errors":0}],"nets":[]}
                """,
                f => Read(f, json.WorkerStats)),
            ("""{"device":"disk0","limits":{"bytesPerSecond":1}}""", f => Read(f, json.LimitsBody)),
            ("""{"vnode":0,"bytes":1048576,"balloonBytes":0,"auto":true}""", f => Read(f, json.MemoryWish)),
            (
                """
                {"vnodes":[{"vnode":0,"leastBytes":1,"mostBytes":2,"askedBytes":1,"presentBytes":1,"stuckBytes":0,
                "driven":true}],"balloon":{"targetBytes":1,"actualBytes":1,"heldBytes":1,"freeBytes":null,
                "availableBytes":1,"totalBytes":1}}
                """,
                f => Read(f, json.VmMemory, m => _ = m.Settled)),
            (
                """
                {"vnodes":[{"vnode":0,"hostNodes":[0],"policy":"strict","pageBytes":4096,"hostCpus":[0,1],
                "threads":[{"name":"vcpu0","id":5}]}],"rehome":{"vnode":0,"hostNodes":[1],"state":"running",
                "progress":0.5,"movedBytes":1,"left":[{"node":0,"bytes":1}],"milliseconds":5}}
                """,
                f => Read(f, json.WorkerNuma)),
            ("""{"vnode":0,"hostNodes":[0,1],"hostCpus":[1],"bytesPerSecond":5}""", f => Read(f, json.RehomeBody)),
            ("""{"disk":{"path":"x"},"net":null}""", f => Read(f, json.PlugBody, ReadDevice)),
            ("""{"device":"disk0","timeoutMilliseconds":5,"force":true}""", f => Read(f, json.UnplugBody)),
            ("""{"device":"disk0","outcome":"removed"}""", f => Read(f, json.RemovalBody)),
            ("""{"devices":[{"name":"disk0","kind":"disk","source":"x","slot":3,"readOnly":false,"removing":false,"stored":true}]}""",
                f => Read(f, json.DeviceList)),
            ("""{"dial":1,"port":4294967295}""", f => Read(f, json.VsockDial)),
            ("""{"dial":1,"connected":true}""", f => Read(f, json.VsockDialed)),
        ];
        string[] nasty =
        [
            "null", "[null]", "-1", "1e999", "0.5", "18446744073709551616", "4294967296", "\"\\ud800\"", "\"\"", "{}", "[]", "true",
            "\"idle\"", new string('[', 40), "{\"a\":", ",", "\0"
        ];
        int[] whole = new int[bodies.Length];
        for (int i = 0; i < iterations; i++)
        {
            string text = bodies[i % bodies.Length].Json;
            for (int changes = random.Next(4); changes > 0; changes--)
            {
                int from = random.Next(text.Length), to = Math.Min(text.Length, from + random.Next(8));
                if (random.Next(2) == 0 && text.IndexOf(':', from) is > 0 and int colon)
                {
                    (from, to) = (colon + 1, text.IndexOfAny([',', '}', ']'], colon)); // a member's value
                    to = to < 0 ? text.Length : to;
                }

                text = text[..from] + nasty[random.Next(nasty.Length)] + text[to..];
            }

            byte[] packet = Packet(Encoding.UTF8.GetBytes($$"""{"id":0,"kind":"x","body":{{text}}}"""));
            int reader = random.Next(8) > 0 ? i % bodies.Length : random.Next(bodies.Length);
            if (ControlCodec.TryDecode(packet, 0, out string problem) is not { } frame)
            {
                Assert.NotEmpty(problem);
            }
            else if (bodies[reader].Read(frame) is not { } refused)
            {
                whole[reader]++;
            }
            else
            {
                Assert.NotEmpty(refused);
            }
        }

        Assert.All(whole, count => Assert.True(count > 0));
    }

    private static void ReadDevice(PlugBody body)
    {
        _ = body.Disk is { } disk ? VmSpecJson.TryReadDisk(disk, out _) : null;
        _ = body.Net is { } net ? VmSpecJson.TryReadNet(net, out _) : null;
    }

    /// <summary>
    /// Why it is refused; null when it is whole, which then can be looked at without a fault, or, if nobody does, written.
    /// </summary>
    private static string? Read<T>(ControlFrame frame, System.Text.Json.Serialization.Metadata.JsonTypeInfo<T> type, Action<T>? look = null)
        where T : class
    {
        if (!ControlCodec.TryBody(frame, type, out T? body, out string problem))
        {
            return problem;
        }

        if (look is not null)
        {
            look(body);
        }
        else
        {
            _ = JsonSerializer.SerializeToUtf8Bytes(body, type);
        }

        return null;
    }

    [Fact]
    public void A_spec_that_was_written_is_read_back()
    {
        FsCheck.Check.QuickThrowOnFailure(Prop.ForAll<int, bool, int>((seed, rng, disks) =>
        {
            Random random = new(seed);
            VmSpec spec = new()
            {
                Name = $"vm-{random.Next()}",
                Cpus = random.Next(1, 9),
                Memory = new ByteSize((ulong)random.Next(32, 4096) << 20),
                Boot = new BootSpec { Kernel = "/boot/käse \"x\"", Initrd = rng ? null : "/i", Cmdline = "a=b \u0001" },
                Rng = rng,
                VirtioTransport = rng ? VirtioTransport.Pci : VirtioTransport.Mmio,
                Serial = !rng,
                Disks = [.. Enumerable.Range(0, Math.Abs(disks % 4))
                    .Select(i => new DiskSpec
                    {
                        Path = $"/d{i}",
                        ReadOnly = rng,
                        Queues = i + 1,
                        Cache = rng ? DiskCache.Buffered : DiskCache.Direct,
                        Serial = rng ? $"s{i}" : null
                    })],
            };
            spec = rng ? NumaSplit.Apply(spec with { Cpus = 4, Memory = ByteSize.MiB(256) }, 2) : spec;
            VmSpec? read = VmSpecJson.TryRead(VmSpecJson.Write(spec), out string problem);
            return read is not null && problem.Length == 0
                && string.Equals(VmSpecJson.Write(read).GetRawText(), VmSpecJson.Write(spec).GetRawText(), StringComparison.Ordinal)
                && read.Disks.SequenceEqual(spec.Disks) && read.Boot == spec.Boot && read.Memory == spec.Memory;
        }));
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("""{"name":"x","disks":[null]}""")]
    [InlineData("""{"disks":null}""")]
    [InlineData("""{"unknown":1}""")]
    [InlineData("3")]
    public void Specs_that_are_not_whole_are_refused(string json)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        Assert.Null(VmSpecJson.TryRead(document.RootElement, out string problem));
        Assert.NotEmpty(problem);
    }

    private static byte[] Packet(byte[] json)
    {
        byte[] packet = [.. "VMC1"u8, .. BitConverter.GetBytes(json.Length), .. json];
        return packet;
    }
}
