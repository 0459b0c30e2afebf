using System.Globalization;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// A chain is streamed into its top while guests write it, on files that crash and fail. Afterwards the top alone, or over the base that
/// its header names, holds what the model says. Numbers and seed as of <see cref="Qcow2TrialTests"/>.
/// </summary>
public sealed class StreamTrialTests(ImageStore images) : IClassFixture<ImageStore>
{
    private const int EachImage = 3;

    public static TheoryData<string> Chains => [.. ImageSpec.All.Where(s => s.Depth > 1).Select(s => s.Name)];

    /// <summary>It is over when the requests are, or goes on behind them: nothing fails, leaks, or differs from the model.</summary>
    [Theory]
    [MemberData(nameof(Chains))]
    public void A_chain_is_streamed_while_guests_write(string image) => Repeat(
        image, "VMM_DISK_SEQUENCES", (trial, _) => trial.RunClean());

    /// <summary>After a cut at any step, also of the header: leaks at most, and every byte that was made durable.</summary>
    [Theory]
    [MemberData(nameof(Chains))]
    public void A_power_cut_amid_a_stream_loses_nothing(string image) => Repeat(
        image, "VMM_DISK_CUTS", (trial, random) => trial.RunCut(random.Next(1, 600), outcomes: 2));

    /// <summary>One step of the file fails, or the file system is full for a while.</summary>
    [Theory]
    [MemberData(nameof(Chains))]
    public void A_stream_on_a_host_that_fails_leaves_a_sound_image(string image) => Repeat(
        image, "VMM_DISK_FAULTS", (trial, random) => random.Next(3) switch
        {
            0 => trial.RunFault(FileSteps.NeedSpace, random.Next(1, 300), DiskStatus.NoSpace, 1 << random.Next(10)),
            1 => trial.RunFault(FileSteps.Changes | FileSteps.Read, random.Next(1, 500), DiskStatus.IoError, 1 << random.Next(6)),
            _ => trial.RunFault(FileSteps.Flush, random.Next(1, 60), DiskStatus.IoError, 1 << random.Next(4)),
        });

    private void Repeat(string name, string variable, Func<Trial, Random, string?> run)
    {
        TestImage image = images[name];
        string? count = Environment.GetEnvironmentVariable(variable), start = Environment.GetEnvironmentVariable("VMM_DISK_SEED");
        int trials = count is null ? EachImage : Math.Max(1, int.Parse(count, CultureInfo.InvariantCulture) / Chains.Count);
        int first = start is null ? 0 : int.Parse(start, CultureInfo.InvariantCulture);
        for (int seed = first; seed < first + trials; seed++)
        {
            int queues = 1 << (seed % 3);
            int target = new Random(seed).Next(1, image.Spec.Depth + 1); // the image that stays below; their number: none
            Trial trial = new(image, Open, seed, queues, requests: 160 / queues)
            {
                Beside = (disk, mayFail) => Stream(image, target, (Qcow2Disk)disk, mayFail),
            };
            string? wrong = run(trial, new Random(seed));
            Assert.True(wrong is null, $"{name}, seed {seed}, {queues} queues, onto image {target}: {wrong}");
        }
    }

    private static string? Stream(TestImage image, int target, Qcow2Disk disk, bool mayFail)
    {
        string? name = target == image.Spec.Depth ? null : image.NameOf(target);
        int gone = image.Spec.Depth - disk.Images, bound = Math.Max(1, target - gone);
        try
        {
            ImageStream.Run(disk, bound, name, name is null ? null : image.IsQcow2(target) ? "qcow2" : "raw", ToolProgress.None);
            return null;
        }
        catch (BlockException error)
        {
            return mayFail ? null : error.ToString();
        }
    }

    // The chain is what the top's header says.
    private static IDiskBackend Open(TestImage image, IReadOnlyList<IImageFile> files)
    {
        string? backing = ImageFiles.ReadHeader(files[0]).BackingFile;
        int first = backing is null ? image.Spec.Depth : Enumerable.Range(1, image.Spec.Depth - 1).Single(i => image.NameOf(i) == backing);
        return Qcow2Disk.Open(
        [
            new ImageLayer(files[0], ImageFormat.Qcow2),
            .. Enumerable.Range(first, image.Spec.Depth - first).Select(i =>
                new ImageLayer(files[i], image.IsQcow2(i) ? ImageFormat.Qcow2 : ImageFormat.Raw)),
        ]);
    }
}
