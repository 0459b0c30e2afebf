using Vmm.Devices.Bus;

namespace Vmm.State.Tests.Parts;

/// <summary>A device of registers as a test drives it: what a guest and its host can do to it, and what comes out.</summary>
internal sealed class Rig
{
    internal required IMachinePart Part { get; init; }

    /// <summary>What is on the bus, with the number of ports or bytes of each.</summary>
    internal required IReadOnlyList<(IBusDevice Device, int Length)> Windows { get; init; }

    /// <summary>What the host does to it, at random.</summary>
    internal IReadOnlyList<Action<Random>> Host { get; init; } = [];

    /// <summary>Widths of accesses in bytes.</summary>
    internal int[] Widths { get; init; } = [1, 1, 1, 2, 4];

    /// <summary>The values that drivers write more often than others.</summary>
    internal byte[] LikelyBytes { get; init; } = [];

    /// <summary>Interrupts and bytes that came out, in order.</summary>
    internal List<string> Output { get; init; } = [];

    /// <summary>One random step; answers what the guest saw.</summary>
    internal string Step(int seed)
    {
        Random random = new(seed);
        if (Host.Count > 0 && random.Next(6) == 0)
        {
            Host[random.Next(Host.Count)](random);
            return "host";
        }

        (IBusDevice device, int length) = Windows[random.Next(Windows.Count)];
        byte[] data = new byte[Widths[random.Next(Widths.Length)]];
        ulong offset = (ulong)(random.Next(length) / data.Length * data.Length);
        if (random.Next(2) == 0)
        {
            device.Read(offset, data);
            return $"read {offset}: {Convert.ToHexString(data)}";
        }

        random.NextBytes(data);
        if (LikelyBytes.Length > 0 && random.Next(3) > 0)
        {
            data[0] = LikelyBytes[random.Next(LikelyBytes.Length)];
        }

        device.Write(offset, data);
        return $"write {offset}";
    }
}

/// <summary>Writes down what a line does.</summary>
internal sealed class LoggedLine(string name, List<string> output) : IInterruptLine
{
    public void Set(bool level) => output.Add($"{name} {(level ? "up" : "down")}");
}

/// <summary>The property that every unit keeps.</summary>
internal static class SavedAnywhere
{
    /// <summary>
    /// Whatever happened before, a fresh device that takes the saved state answers as the first one from then on; saving changes nothing;
    /// and what was saved
    /// is saved again.
    /// </summary>
    internal static void Check(Func<Rig> make, int runs = 300, int longest = 60)
    {
        for (int run = 0; run < runs; run++)
        {
            Random random = new(run);
            Rig first = make(), second = make();
            for (int step = random.Next(longest); step > 0; step--)
            {
                first.Step(random.Next());
            }

            byte[] saved = Save(first.Part);
            Restore(second.Part, saved);
            Assert.Equal(saved, Save(second.Part));
            first.Part.Resume();
            second.Part.Resume();
            first.Output.Clear();
            second.Output.Clear();
            for (int step = 0; step < longest; step++)
            {
                int seed = random.Next();
                Assert.Equal(first.Step(seed), second.Step(seed));
                Assert.Equal(first.Output, second.Output);
            }
        }
    }

    /// <summary>No saved state, however damaged, does anything but fail with a StateException or make a device that answers.</summary>
    internal static void CheckHostile(Func<Rig> make, int runs = 3000)
    {
        Random random = new(5);
        for (int run = 0; run < runs; run++)
        {
            Rig first = make(), second = make();
            for (int step = random.Next(20); step > 0; step--)
            {
                first.Step(random.Next());
            }

            StateWriter writer = new(first.Part.Id);
            first.Part.Save(writer);
            UnitBlob blob = writer.ToBlob();
            UnitBlob damaged = blob with { Records = [.. blob.Records.Select(r => r with { Data = Damaged.Json(r.Data.Span, random) })] };
            try
            {
                second.Part.Restore(new StateReader(damaged));
            }
            catch (StateException)
            {
                continue;
            }

            second.Part.Resume();
            for (int step = 0; step < 20; step++)
            {
                second.Step(random.Next());
            }
        }
    }

    internal static byte[] Save(IMachinePart part)
    {
        StateWriter writer = new(part.Id);
        part.Save(writer);
        return StateDocumentWriter.Write(new StateDocument("test", Documents.About, [writer.ToBlob()]));
    }

    internal static void Restore(IMachinePart part, byte[] saved)
    {
        StateReader reader = new(StateDocumentReader.Read(saved).Units[0]);
        part.Restore(reader);
        reader.RequireAllTaken();
    }
}
