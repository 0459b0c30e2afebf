using System.Text;
using Vmm.Contracts.Control;
using Vmm.LifeCycle;

namespace Vmm.Worker.Tests;

public sealed class EndRecordTests
{
    private static readonly WorkerExit Exit = new(ExitReason.TripleFault, 1, "grün", ["rip 1", "rsp 2"]);

    [Fact]
    public void What_was_written_is_read()
    {
        byte[] file = new byte[EndRecord.Length];
        Assert.Null(EndRecord.Read(file));
        EndRecord.Write(file, Exit);
        WorkerExit read = EndRecord.Read(file)!;
        Assert.Equal((Exit.Reason, Exit.ExitCode, Exit.Message), (read.Reason, read.ExitCode, read.Message));
        Assert.Equal(Exit.Report, read.Report);
    }

    [Fact]
    public void A_record_that_does_not_fit_keeps_its_reason()
    {
        byte[] file = new byte[EndRecord.Length];
        EndRecord.Write(file, new WorkerExit(ExitReason.Failed, 1, new string('\u0001', 200_000), [new string('x', 200_000)]));
        WorkerExit read = EndRecord.Read(file)!;
        Assert.Equal(ExitReason.Failed, read.Reason);
        Assert.Equal(1024, read.Message!.Length);
        Assert.Null(read.Report);
    }

    [Fact]
    public void Anything_else_is_no_record()
    {
        byte[] file = new byte[EndRecord.Length];
        EndRecord.Write(file, Exit);
        Assert.Null(EndRecord.Read(file.AsSpan(0, 20))); // shorter than it says
        Assert.Null(EndRecord.Read([]));
        byte[] unfinished = [.. file];
        unfinished.AsSpan(0, 8).Clear(); // the body is there, its header is not: the worker died in between
        Assert.Null(EndRecord.Read(unfinished));
        byte[] endless = [.. file];
        endless.AsSpan(4, 4).Fill(0xff);
        Assert.Null(EndRecord.Read(endless));
        byte[] nonsense = [.. file];
        Encoding.ASCII.GetBytes("}{").CopyTo(nonsense, 8);
        Assert.Null(EndRecord.Read(nonsense));
    }
}
