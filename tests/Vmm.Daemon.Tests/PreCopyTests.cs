using System.Text.Json;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Workers;
using Vmm.Interop;

namespace Vmm.Daemon.Tests;

/// <summary>What vmmd makes of what a worker says of its move, also of one that was taken over.</summary>
public sealed class PreCopyTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;
    private static readonly MoveInfo s_copying = new(MoveStage.Copying, 1, 100, 60, 40, 10, 5, 0, 7);

    [Theory]
    [InlineData(double.NaN, 0)]
    [InlineData(double.PositiveInfinity, 0)]
    [InlineData(-5, 0)]
    [InlineData(7.5, 7.5)]
    public void Whatever_a_worker_says_can_be_written(double said, double told)
    {
        MoveProgress progress = PreCopy.Progress(
            s_copying with
            {
                DowntimeMilliseconds = said,
                ThrottlePercent = int.MaxValue,
                LeftBytes = ulong.MaxValue,
                SentBytes = ulong.MaxValue,
            });
        Assert.Equal((told, 100), (progress.DowntimeMilliseconds, progress.ThrottlePercent));
        Assert.InRange(progress.Part(), 0, 1);
        Assert.NotEmpty(JsonSerializer.Serialize(progress, RestJson.Default.MoveProgress));
    }

    [Theory]
    [InlineData(MoveStage.None)]
    [InlineData(MoveStage.Failed)]
    [InlineData(MoveStage.HandedOver)]
    public async Task A_stage_that_cannot_be_ends_the_move_and_its_text_is_made_fit(MoveStage stage)
    {
        Said worker = new(s_copying, s_copying with { Stage = stage, Problem = new string('x', 100_000) + "\u001b[2J" });
        PreCopy copy = new("web1", worker, new MoveWish(TimeSpan.FromMilliseconds(50), TimeSpan.FromMinutes(1)), _ => { });
        WorkerException failed = await Assert.ThrowsAsync<WorkerException>(() => copy.ConvergeAsync(_ => Task.CompletedTask, s_none));
        Assert.InRange(failed.Message.Length, 1, 400);
        Assert.DoesNotContain('\u001b', failed.Message);
    }

    [Fact]
    public async Task By_force_it_is_stopped_when_its_time_is_over()
    {
        MoveWish wish = new(TimeSpan.FromMilliseconds(50), TimeSpan.FromMilliseconds(1), Force: true);
        PreCopy copy = new("web1", new Said(s_copying), wish, _ => { });
        await copy.ConvergeAsync(_ => Task.CompletedTask, s_none);
        Assert.Equal(TimeSpan.FromSeconds(10), wish.LongestStop);
    }

    [Fact]
    public async Task The_other_end_is_asked_between_looks()
    {
        PreCopy copy = new("web1", new Said(s_copying), new MoveWish(TimeSpan.FromMilliseconds(50), TimeSpan.FromMinutes(1)), _ => { });
        await Assert.ThrowsAsync<WorkerException>(
            () => copy.ConvergeAsync(_ => throw new WorkerException("move-failed", "it is gone"), s_none));
    }

    /// <summary>Says one thing after the other, the last for ever.</summary>
    private sealed class Said(params MoveInfo[] words) : IWorkerMoves
    {
        private int _next;

        public Task<bool> CanPassMemoryAsync() => Task.FromResult(false);

        public Task BeginAsync(MoveBody wish, IReadOnlyList<FileDescriptorHandle> channels, CancellationToken cancellation) =>
            Task.CompletedTask;

        public Task<MoveInfo> StatusAsync(CancellationToken cancellation) =>
            Task.FromResult(words[Math.Min(_next++, words.Length - 1)]);

        public Task<MoveInfo> StopAsync(TimeSpan longest, CancellationToken cancellation) => Task.FromResult(words[^1]);

        public Task CancelAsync(CancellationToken cancellation) => Task.CompletedTask;
    }
}
