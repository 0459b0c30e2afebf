using System.Globalization;
using System.Text;
using System.Text.Json;
using FsCheck.Fluent;
using Vmm.Contracts.Control;
using Vmm.Machine.Spec;
using Vmm.Memory;

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
            ControlFrame frame = new() { Id = Math.Abs((long)id), Kind = kind, Descriptors = names, Body = JsonSerializer.SerializeToElement(text ?? "") };
            ControlFrame? read = ControlCodec.TryDecode(ControlCodec.Encode(frame), names.Length, out string problem);
            return read is not null && problem.Length == 0 && read.Id == frame.Id && string.Equals(read.Kind, kind, StringComparison.Ordinal)
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
    [InlineData("""{"id":1,"kind":"start","more":1}""", 0, "more")]
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
    public void A_frame_that_is_too_long_is_not_written() =>
        Assert.Throws<ArgumentException>(() => ControlCodec.Encode(new ControlFrame { Id = 1, Kind = "x", Body = JsonSerializer.SerializeToElement(new string('x', ControlCodec.MaxFrame)) }));

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
            Body = ControlCodec.Body(new CreateBody("id", 5, VmSpecJson.Write(new VmSpec { Disks = [new DiskSpec()] })), ControlJson.Default.CreateBody),
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
                Disks = [.. Enumerable.Range(0, Math.Abs(disks % 4)).Select(i => new DiskSpec { Path = $"/d{i}", ReadOnly = rng, Queues = i + 1, Cache = rng ? DiskCache.Buffered : DiskCache.Direct, Serial = rng ? $"s{i}" : null })],
            };
            spec = rng ? NumaSplit.Apply(spec with { Cpus = 4, Memory = ByteSize.MiB(256) }, 2) : spec;
            VmSpec? read = VmSpecJson.TryRead(VmSpecJson.Write(spec), out string problem);
            return read is not null && problem.Length == 0 && string.Equals(VmSpecJson.Write(read).GetRawText(), VmSpecJson.Write(spec).GetRawText(), StringComparison.Ordinal)
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
