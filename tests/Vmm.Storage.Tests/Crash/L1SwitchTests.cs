using System.Buffers.Binary;
using Vmm.Storage.Qcow2;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// The power goes at each step of a growth whose header names a longer L1 table: in its place, where anything may lie behind its end, or
/// elsewhere. What the header names then is a table that is there.
/// </summary>
public sealed class L1SwitchTests(ImageStore images) : IClassFixture<ImageStore>
{
    private const string Name = "4 KiB";
    private const int Outcomes = 24;

    [Theory]
    [InlineData(64ul << 20)] // in its place
    [InlineData(3ul << 30)]
    public void A_header_never_names_a_table_that_is_not_stable(ulong size)
    {
        TestImage image = images[Name];
        SparseBytes before = WithNoiseBehindItsL1(image.Layers[0]);
        DiskModel model = new(image.Content);
        int step = 0;
        for (bool isOver = false; !isOver;)
        {
            step++;
            using CrashFile file = new(before, step);
            using (Qcow2Disk disk = Qcow2Disk.Open([.. image.Open(file).Select(each => new ImageLayer(each, ImageFormat.Qcow2))]))
            {
                file.Plan(faults => faults.CutAt(step));
                isOver = Grows(disk, size);
            }

            Random random = new(step);
            for (int outcome = 0; outcome < Outcomes; outcome++)
            {
                string? wrong = Wrong(image, file.CutPower(random), size, model, judge: outcome % 3 == 0);
                Assert.True(wrong is null, $"growth to {size}, cut at step {step}, outcome {outcome}: {wrong}");
            }
        }

        Assert.InRange(step, 6, 60); // refcounts, table, header, zeros, size
    }

    private static bool Grows(Qcow2Disk disk, ulong size)
    {
        try
        {
            disk.Enlarge(size);
            return true;
        }
        catch (BlockException)
        {
            return false; // the power went
        }
    }

    private static string? Wrong(TestImage image, SparseBytes after, ulong size, DiskModel model, bool judge)
    {
        using (CrashFile file = new(after))
        {
            using Qcow2Disk disk = Qcow2Disk.Open([.. image.Open(file).Select(each => new ImageLayer(each, ImageFormat.Qcow2))]);
            ulong has = disk.Geometry.CapacityBytes;
            if (has != size && has != image.Spec.DiskSize)
            {
                return $"it has {has} bytes";
            }

            if (DiskReader.Read(disk, [(0, image.Spec.DiskSize), .. BehindOldEnd(image, has)], model.WrongToRead) is { } wrong)
            {
                return wrong;
            }
        }

        if (!judge)
        {
            return null;
        }

        string path = image.SaveTop(after);
        try
        {
            QemuJudge.Found found = QemuJudge.Check(path);
            return found.Errors > 0 ? found.Text : null;
        }
        finally
        {
            File.Delete(path);
        }
    }

    // A look by each new entry, as far as there was noise in its place.
    private static IEnumerable<(ulong From, ulong To)> BehindOldEnd(TestImage image, ulong end)
    {
        const ulong Covered = 2 << 20;
        for (ulong at = image.Spec.DiskSize / Covered * Covered; at < Math.Min(end, 512 * Covered); at += Covered)
        {
            ulong from = Math.Max(at, image.Spec.DiskSize);
            yield return (from, Math.Min(from + 4096, end));
        }
    }

    // What lies behind the last entry of a table means nothing.
    private static SparseBytes WithNoiseBehindItsL1(SparseBytes image)
    {
        SparseBytes noisy = image.Copy();
        byte[] header = new byte[72];
        noisy.Read(header, 0);
        uint entries = BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(36));
        ulong at = BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(40));
        byte[] noise = new byte[4096 - (entries * 8)];
        for (int i = 0; i < noise.Length; i += 8)
        {
            BinaryPrimitives.WriteUInt64BigEndian(noise.AsSpan(i), (1ul << 63) | (4096ul * (ulong)(i + 1000)));
        }

        noisy.Write(noise, at + (entries * 8));
        return noisy;
    }
}
