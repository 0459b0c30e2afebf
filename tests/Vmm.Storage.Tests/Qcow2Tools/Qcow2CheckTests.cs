using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Qcow2Tools;

[Collection(Scratch.Alone)]
public sealed class Qcow2CheckTests
{
    [QemuTheory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void An_image_that_qemu_made_is_clean(int kind)
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["image"], kind);
        CheckReport report = Check(scratch["image"]);
        Assert.True(report.IsClean, Text(report));
        Assert.Equal(0, QemuImg.Check(scratch["image"]).ExitCode);
    }

    /// <summary>
    /// Five hundred images with one to three damages each: both tools find corruption, or leaks only, or nothing. Where all findings are
    /// about refcounts, both count the same.
    /// </summary>
    [QemuTheory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void Both_tools_agree_about_a_hundred_random_damages(int kind)
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["sound"], kind);
        List<string> different = [];
        int damaged = 0;
        for (int i = 0; i < 100; i++)
        {
            File.Copy(scratch["sound"], scratch["image"], overwrite: true);
            string what = Damage.Apply(scratch["image"], new Random((kind * 1000) + i));
            (int code, ulong corruptions, ulong leaks, string output) = QemuImg.Check(scratch["image"]);
            CheckReport report = Check(scratch["image"]);
            damaged += code == 0 ? 0 : 1;
            if (!Agrees(report, code, corruptions, leaks))
            {
                different.Add($"{i} {what}: {report.ExitCode} {report.Corruptions} {report.Leaks}\n{Text(report)}\n"
                    + $"qemu {code} {corruptions} {leaks}\n{output}");
            }
        }

        Assert.True(different.Count == 0, string.Join("\n----\n", different.Take(5)) + $"\n{different.Count} differ");
        Assert.True(damaged > 50, $"only {damaged} damages did any harm");
    }

    private static bool Agrees(CheckReport report, int code, ulong corruptions, ulong leaks)
    {
        // Entries that the format forbids and qemu-img reads as something else, and tables over something else.
        ulong ours = report.Corruptions
            - (ulong)report.Findings.Count(f => f.Kind is CheckFindingKind.ImpossibleEntry or CheckFindingKind.Overlap);
        bool refcounts = report.Findings.All(f => f.Kind is CheckFindingKind.CopiedFlag or CheckFindingKind.Leak
            or CheckFindingKind.RefcountTooSmall or CheckFindingKind.ImpossibleEntry or CheckFindingKind.Overlap);
        int exit = ours > 0 ? 2 : report.Leaks > 0 ? 3 : 0;
        return code == 1 ? report.ExitCode == 2
            : exit == code && (!refcounts || (ours == corruptions && report.Leaks == leaks));
    }

    private static CheckReport Check(string path)
    {
        using RawImageFile file = ImageFiles.Open(path, writable: false);
        return Qcow2Check.Run(file);
    }

    private static string Text(CheckReport report) => string.Join('\n', report.Findings.Take(20).Select(f => f.Text));
}
