using Vmm.Fuzz;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Testing.Images;
using Xunit.Abstractions;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>
/// The target of tests/fuzz on damages that a coverage-guided fuzzer needs long for, with an eye on time and memory.
/// <c>VMM_DISK_DAMAGES</c> is the number of random ones, <c>VMM_DISK_SEED</c> the first seed.
/// </summary>
[Collection(Scratch.Alone)]
public sealed class Qcow2FuzzTests(ITestOutputHelper output)
{
    // Of processor time: at the limit a tool counts as one that hangs, whatever else the machine does.
    private static readonly TimeSpan s_mostTime = TimeSpan.FromSeconds(5);

    private TimeSpan _longest;
    private long _most;

    /// <summary>Each field of header, tables, blocks and extensions gets values that are known to hurt.</summary>
    [Fact]
    public void No_field_of_an_image_makes_a_tool_crash_hang_or_take_memory()
    {
        Random random = new(14);
        foreach (byte[] sound in HostileImages.Sound)
        {
            foreach ((byte[] image, string what) in HostileImages.WithFieldsDamaged(sound, random))
            {
                Feed(image, what);
            }
        }
    }

    [Fact]
    public void Random_damages_neither()
    {
        int first = HostileImages.Number("VMM_DISK_SEED") ?? 0, images = HostileImages.Number("VMM_DISK_DAMAGES") ?? 3000;
        for (int seed = first; seed < first + images; seed++)
        {
            Feed(HostileImages.Random(new Random(seed)), $"seed {seed}");
        }

        output.WriteLine($"{images} images; at most {_longest.TotalMilliseconds:F0} ms of processor time and {_most} bytes for one");
    }

    [Fact]
    public void Huge_tables_are_read_in_pieces_and_refused_where_they_cannot_be()
    {
        byte[] image = (byte[])HostileImages.Sound[0].Clone();
        Qcow2Header header = Qcow2Header.Parse(image, "image");
        foreach (Qcow2Header huge in new[]
        {
            header with { L1Size = 4 << 20 },
            header with { RefcountTableClusters = 16384 },
            header with { Snapshots = 65536, SnapshotsOffset = 512 },
            header with { DiskSize = 1ul << 37, L1Size = 4 << 20 },
        })
        {
            byte[] bytes = (byte[])image.Clone();
            huge.Encode().CopyTo(bytes, 0);
            Feed(bytes, $"{huge.L1Size} {huge.RefcountTableClusters} {huge.Snapshots}");
        }
    }

    private void Feed(byte[] image, string what)
    {
        TimeSpan start = Environment.CpuUsage.TotalTime;
        long before = GC.GetAllocatedBytesForCurrentThread();
        try
        {
            Qcow2Target.Run(image);
        }
        catch (Exception e)
        {
            Assert.Fail($"{what}: {e}");
        }

        long bytes = GC.GetAllocatedBytesForCurrentThread() - before;
        TimeSpan time = Environment.CpuUsage.TotalTime - start;
        if (time >= s_mostTime || bytes >= 64 << 20)
        {
            Assert.Fail($"{what}: {time.TotalMilliseconds:F0} ms of processor time, {bytes} bytes");
        }

        (_longest, _most) = (time > _longest ? time : _longest, Math.Max(_most, bytes));
    }
}
