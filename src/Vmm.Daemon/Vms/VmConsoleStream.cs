using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Vms;

/// <summary>
/// A console that outlives its worker: when the VM goes on in another one, so does this. What the first one still has to say comes first.
/// One reader and one writer.
/// </summary>
internal sealed class VmConsoleStream : Stream
{
    private readonly VmSupervisor _vm;
    private readonly SemaphoreSlim _turn = new(1, 1);
    private IWorker _worker; // of what is written to
    private Stream _writing, _reading;

    private VmConsoleStream(VmSupervisor vm, IWorker worker, Stream console) =>
        (_vm, _worker, _writing, _reading) = (vm, worker, console, console);

    /// <summary>Opens it.</summary>
    /// <exception cref="ApiException">The VM does not run.</exception>
    internal static async Task<VmConsoleStream> OpenAsync(VmSupervisor vm, CancellationToken cancellation)
    {
        IWorker worker = vm.RequireWorker();
        return new VmConsoleStream(vm, worker, await worker.OpenConsoleAsync(cancellation).ConfigureAwait(false));
    }

    public override bool CanRead => true;

    public override bool CanWrite => true;

    public override bool CanSeek => false;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        while (true)
        {
            int count = 0;
            try
            {
                count = await _reading.ReadAsync(buffer, cancellationToken).ConfigureAwait(false);
            }
            catch (IOException)
            {
                // As its end; whether that is the end of all is the question.
            }

            Stream next = count > 0 ? _reading : await FollowAsync(cancellationToken).ConfigureAwait(false);
            if (ReferenceEquals(next, _reading))
            {
                return count;
            }

            await _reading.DisposeAsync().ConfigureAwait(false);
            _reading = next;
        }
    }

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        Stream now = await FollowAsync(cancellationToken).ConfigureAwait(false);
        await now.WriteAsync(buffer, cancellationToken).ConfigureAwait(false);
        await now.FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override void Flush()
    {
    }

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        _reading.Dispose();
        _writing.Dispose();
        base.Dispose(disposing);
    }

    /// <summary>The console of the worker that has the VM now.</summary>
    private async Task<Stream> FollowAsync(CancellationToken cancellation)
    {
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (_vm.Handover.After(_worker) is { } next)
            {
                _writing = await next.OpenConsoleAsync(cancellation).ConfigureAwait(false);
                _worker = next;
            }

            return _writing;
        }
        catch (WorkerException cause)
        {
            throw new IOException(cause.Message, cause);
        }
        finally
        {
            _turn.Release();
        }
    }
}
